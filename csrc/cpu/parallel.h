// Threads for the CPU loops. They exist for one call. There is no thread pool: so there is no second OpenMP runtime
// beside torch's, fork() is safe, and no thread spins while Python runs. Starting a thread takes about 20 us; `grain`
// keeps small calls on one thread.
#pragma once

#include <stdint.h>

#include <exception>
#include <thread>

namespace dkpnet::cpu {

// Calls body(begin, end) on disjoint ranges that cover [0, count): at most `threads` of them, each of at least `grain`
// items. Which thread computes an item never changes what is computed, so results do not depend on `threads`.
template <typename Body>
static void parallel_for(int64_t count, int64_t grain, int threads, const Body& body) {
  constexpr int most = 64;
  int64_t parts = count / (grain > 0 ? grain : 1);
  parts = parts < threads ? parts : threads;
  parts = parts < most ? parts : most;
  if (parts <= 1) {
    if (count > 0) body(int64_t(0), count);
    return;
  }
  std::thread workers[most];
  std::exception_ptr failures[most];  // of each part; rethrown after every thread is joined
  const auto run = [&](int64_t p) noexcept {
    try {
      body(count * p / parts, count * (p + 1) / parts);
    } catch (...) {
      failures[p] = std::current_exception();
    }
  };
  int64_t started = 1;
  try {
    for (; started < parts; ++started) workers[started] = std::thread(run, started);
  } catch (...) {  // a limit on threads or memory: the caller computes the rest
  }
  run(0);
  for (int64_t p = started; p < parts; ++p) run(p);
  for (int64_t p = 1; p < started; ++p) workers[p].join();
  for (int64_t p = 0; p < parts; ++p)
    if (failures[p]) std::rethrow_exception(failures[p]);
}

// The same, item by item: calls body(item) for every item of [0, count).
template <typename Body>
static void parallel_each(int64_t count, int64_t grain, int threads, const Body& body) {
  parallel_for(count, grain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) body(item);
  });
}

}  // namespace dkpnet::cpu
