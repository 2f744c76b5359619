"""The paper's tables and figures on any data: systems, their runs, analysis of models, verdicts, the pages (tables/)."""
