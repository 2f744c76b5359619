"""The paper's tables and figures on any data: which runs they need (plan), what is read off them (analysis), pages (tables)."""
