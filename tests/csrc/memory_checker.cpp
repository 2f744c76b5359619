// Is called by the code that -fsanitize=thread makes of a kernel, in place of ThreadSanitizer's own library.
#include "memory_checker.h"

#include <link.h>
#include <stdint.h>

#include <array>
#include <memory>
#include <unordered_map>

namespace emulation::memory {
namespace {

// Blocks run one after the other and an epoch ends at a barrier or with a block: the epoch tells the block, too.
struct Access {
  uint32_t epoch;  // from 1; 0: no such access
  uint32_t thread;
};
struct Cell {
  Access write, read;  // the last ones
  bool many, abroad;   // other threads have read it in the read's epoch; more than one block has read it
};

constexpr uintptr_t kCell = 2;  // bytes: no kernel has smaller elements
constexpr uintptr_t kPage = 4096;
using Page = std::array<Cell, kPage / kCell>;
std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages;
uintptr_t last_number = 0;
Page* last_page = nullptr;

struct Range {
  uintptr_t begin, end;
  bool contains(uintptr_t at) const { return at >= begin && at < end; }
};
Range stacks, shared;
unsigned block;
uint32_t first_epoch, epoch;  // of the block; now
bool watching = false;
std::string last_barrier;

// The program's thread_local variables; dl_iterate_phdr begins with the program.
Range thread_local_range() {
  Range range{};
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* out) {
        for (int i = 0; i < info->dlpi_phnum; ++i)
          if (info->dlpi_phdr[i].p_type == PT_TLS && info->dlpi_tls_data) {
            const auto begin = reinterpret_cast<uintptr_t>(info->dlpi_tls_data);
            *static_cast<Range*>(out) = {begin, begin + info->dlpi_phdr[i].p_memsz};
          }
        return 1;
      },
      &range);
  return range;
}

Cell& cell_at(uintptr_t at) {
  if (at / kPage != last_number || !last_page) {
    auto& page = pages[at / kPage];
    if (!page) page = std::make_unique<Page>();
    last_number = at / kPage;
    last_page = page.get();
  }
  return (*last_page)[at % kPage / kCell];
}

// Shared memory of another block is another place.
bool unordered(Access before, bool is_shared) {
  return before.epoch >= first_epoch ? before.epoch == epoch && before.thread != thread
                                     : before.epoch > 0 && !is_shared;
}

std::string where() {
  return " thread " + std::to_string(thread) + " of block " + std::to_string(block) +
         (last_barrier.empty() ? "" : " after the barrier at " + last_barrier);
}

void report_race(const char* what, Access before, bool is_shared) {
  report(std::string(what) + (is_shared ? " in shared memory:" : " in global memory:") + where() + " and " +
         (before.epoch >= first_epoch ? "thread " + std::to_string(before.thread) : "another block"));
}

void access(const void* address, size_t size, bool write) {
  const uintptr_t begin = reinterpret_cast<uintptr_t>(address);
  if (!watching || stacks.contains(begin)) return;
  const bool is_shared = shared.contains(begin);
  for (uintptr_t at = begin / kCell * kCell; at < begin + size; at += kCell) {
    Cell& cell = cell_at(at);
    if (is_shared && !write && cell.write.epoch < first_epoch)
      report("shared memory is read that the block has not written:" + where());
    if (unordered(cell.write, is_shared))
      report_race(write ? "two writes" : "a read and a write", cell.write, is_shared);
    if (write) {
      const Access reader{cell.abroad && !is_shared ? 1 : cell.read.epoch, cell.many ? ~0u : cell.read.thread};
      if (unordered(reader, is_shared)) report_race("a read and a write", reader, is_shared);
      cell.write = {epoch, thread};
    } else {
      cell.many = cell.read.epoch == epoch && (cell.many || cell.read.thread != thread);
      cell.abroad = cell.abroad || (cell.read.epoch > 0 && cell.read.epoch < first_epoch);
      cell.read = {epoch, thread};
    }
  }
}

}  // namespace

void watch(bool on) { watching = on; }

void report(const std::string& text) {
  if (fault.empty()) fault = text;
}

void begin_launch(const void* stack, size_t bytes) {
  const auto begin = reinterpret_cast<uintptr_t>(stack);
  stacks = {begin, begin + bytes};
  shared = thread_local_range();
  pages.clear();
  last_page = nullptr;
  epoch = 0;
  fault.clear();
}

void begin_block(unsigned index) {
  block = index;
  first_epoch = ++epoch;
  last_barrier.clear();
}

void pass_barrier(const std::string& site) {
  ++epoch;
  last_barrier = site;
}

}  // namespace emulation::memory

#define DKPNET_HOOKS(size)                                                                   \
  void __tsan_read##size(void* at) { emulation::memory::access(at, size, false); }           \
  void __tsan_write##size(void* at) { emulation::memory::access(at, size, true); }           \
  void __tsan_unaligned_read##size(void* at) { emulation::memory::access(at, size, false); } \
  void __tsan_unaligned_write##size(void* at) { emulation::memory::access(at, size, true); }

extern "C" {
DKPNET_HOOKS(1)
DKPNET_HOOKS(2)
DKPNET_HOOKS(4)
DKPNET_HOOKS(8)
DKPNET_HOOKS(16)
void __tsan_read_range(void* at, size_t size) { emulation::memory::access(at, size, false); }
void __tsan_write_range(void* at, size_t size) { emulation::memory::access(at, size, true); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void*, void*) {}
void __tsan_vptr_read(void*) {}
}
