// Bayesian loss (Ma et al., ICCV 2019): every cell of a density map belongs to the heads of its image, and to a
// background, with the posterior p_nm = softmax over n of -distance^2 / (2 sigma^2).
//
// All exponents of a cell are taken relative to its largest, so that the sum is at least 1: a head whose squared
// distance exceeds the smallest one of the cell by kReach * 2 sigma^2 weighs less than 2e-11 and is left out.
#pragma once

#include <math.h>

#include "math/common.h"

namespace dkpnet::bayesian {

constexpr double kReach = 25.0;

enum class Form : int { paper = 0, code2021 = 1 };

struct Forward {
  const float* density;    // [batch, height, width], heads per cell
  const float* points;     // [num_points, 2], (x, y) in pixels, finite, image after image
  const int64_t* offsets;  // [batch + 1], image b owns points offsets[b] ... offsets[b + 1] - 1
  const float* targets;    // [num_points], or null: 1 for all
  const float* sides;      // [batch], pixels: the background's distance is `ratio` times this
  int64_t batch, num_points;
  int height, width;  // cells
  double stride;      // pixels per cell
  double sigma, ratio;
  Form form;
  float* loss;        // [batch]
  float* slope;       // [batch, height, width], the loss's derivative
  double* workspace;  // workspace(...) doubles, uninitialised
};

// Doubles of workspace: five per cell of `images` images (on the CPU of one, which all take in turn), two per row, and
// per head its factors along both axes, its window and its sign.
static inline int64_t workspace(int64_t images, int64_t num_points, int height, int width) {
  const int64_t padded = (width + 7) / 8 * 8;
  return 5 * images * height * padded + 2 * height + num_points * (height + padded + 5);
}

// Squared distance of the background from a cell whose nearest head is at squared distance `nearest`.
DKPNET_HD double background_distance(double nearest, double reach, Form form) {
  if (form == Form::code2021) return reach * reach / (nearest + 1e-5);
  const double difference = reach - sqrt(nearest);
  return difference * difference;
}

DKPNET_HD double sign_of(double x) { return (x > 0.0) - (x < 0.0); }

}  // namespace dkpnet::bayesian

namespace dkpnet::cuda {  // see cuda/common.h
int bayesian_forward(const bayesian::Forward& args, void* stream);
}
