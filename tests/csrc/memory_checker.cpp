// Is called by the code that -fsanitize=thread makes of a kernel, in place of ThreadSanitizer's own library.
#include "memory_checker.h"

#include <link.h>
#include <stdint.h>

#include <array>
#include <memory>
#include <unordered_map>

namespace emulation::memory {
namespace {

struct Access {
  unsigned block, epoch, thread;  // epoch: barriers and blocks before it, from 1; 0: no such access
};
struct Byte {
  Access write, read;  // the last ones
  bool many, abroad;   // other threads have read it in the read's epoch; other blocks have read it
};

constexpr uintptr_t kPage = 4096;
using Page = std::array<Byte, kPage>;
std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages;
uintptr_t last_number = 0;
Page* last_page = nullptr;

struct Range {
  uintptr_t begin, end;
  bool contains(uintptr_t at) const { return at >= begin && at < end; }
};
Range stacks, shared;
unsigned block, epoch;
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

Byte& byte_at(uintptr_t at) {
  if (at / kPage != last_number || !last_page) {
    auto& page = pages[at / kPage];
    if (!page) page = std::make_unique<Page>();
    last_number = at / kPage;
    last_page = page.get();
  }
  return (*last_page)[at % kPage];
}

bool conflict(const Access& before, bool is_shared) {
  if (before.epoch == 0 || (before.block == block && before.thread == thread)) return false;
  return before.block == block ? before.epoch == epoch : !is_shared;
}

void report_race(const char* what, const Access& before, bool is_shared) {
  report(std::string(what) + (is_shared ? " in shared" : " in global") + " memory: thread " + std::to_string(thread) +
         " of block " + std::to_string(block) + ", thread " + std::to_string(before.thread) + " of block " +
         std::to_string(before.block) + (last_barrier.empty() ? "" : ", after the barrier at " + last_barrier));
}

void access(const void* address, size_t size, bool write) {
  const uintptr_t begin = reinterpret_cast<uintptr_t>(address);
  if (!watching || stacks.contains(begin)) return;
  const bool is_shared = shared.contains(begin);
  for (uintptr_t at = begin; at < begin + size; ++at) {
    Byte& byte = byte_at(at);
    if (is_shared && !write && (byte.write.epoch == 0 || byte.write.block != block))
      report("thread " + std::to_string(thread) + " reads shared memory that its block has not written" +
             (last_barrier.empty() ? "" : ", after the barrier at " + last_barrier));
    if (conflict(byte.write, is_shared)) report_race(write ? "two writes" : "a read and a write", byte.write, is_shared);
    if (!write) {
      const bool again = byte.read.epoch == epoch && byte.read.block == block;
      byte.many = again && (byte.many || byte.read.thread != thread);
      byte.abroad = byte.abroad || (byte.read.epoch != 0 && byte.read.block != block);
      byte.read = {block, epoch, thread};
      continue;
    }
    Access reader = byte.read;
    if (byte.many) reader.thread = ~0u;  // some other
    if (byte.abroad) reader.block = ~0u;
    if (conflict(reader, is_shared)) report_race("a read and a write", reader, is_shared);
    byte.write = {block, epoch, thread};
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
  ++epoch;
  last_barrier.clear();
}

void pass_barrier(const std::string& site) {
  ++epoch;
  last_barrier = site;
}

}  // namespace emulation::memory

#define DKPNET_HOOKS(size)                                                                             \
  void __tsan_read##size(void* at) { emulation::memory::access(at, size, false); }                     \
  void __tsan_write##size(void* at) { emulation::memory::access(at, size, true); }                     \
  void __tsan_unaligned_read##size(void* at) { emulation::memory::access(at, size, false); }           \
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
