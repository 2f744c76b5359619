// Items that threads take from a queue.
#pragma once

#include <atomic>

#include "cpu/parallel.h"

namespace dkpnet::cpu {

// Calls body(item, part) for every item of [0, count). A free thread takes the next item, so that nobody waits for long
// for a core that another process uses. What one thread does has the same part, which is less than `threads`.
template <typename Body>
static void from_queue(int64_t count, int threads, const Body& body) {
  std::atomic<int64_t> next{0};
  const int64_t parts = count < threads ? count : threads;
  parallel_for(parts > 0 ? parts : 1, 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part)
      for (int64_t item = next++; item < count; item = next++) body(item, part);
  });
}

}  // namespace dkpnet::cpu
