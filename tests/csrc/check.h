// The whole unit test framework: a failed check prints where, and check_result() is main's exit status.
#pragma once

#include <math.h>
#include <stdio.h>

inline int& check_failures() {
  static int failures = 0;
  return failures;
}

inline int check_result() {
  if (check_failures()) printf("%d checks failed\n", check_failures());
  return check_failures() ? 1 : 0;
}

#define CHECK(condition)                                              \
  do {                                                                \
    if (!(condition)) {                                               \
      ++check_failures();                                             \
      printf("%s:%d: %s is false\n", __FILE__, __LINE__, #condition); \
    }                                                                 \
  } while (false)

// NaN fails.
#define CHECK_NEAR(actual, expected, tolerance)                                                     \
  do {                                                                                              \
    const double actual_ = (actual), expected_ = (expected);                                        \
    if (!(fabs(actual_ - expected_) <= (tolerance))) {                                              \
      ++check_failures();                                                                           \
      printf("%s:%d: %s = %.9g, expected %.9g\n", __FILE__, __LINE__, #actual, actual_, expected_); \
    }                                                                                               \
  } while (false)
