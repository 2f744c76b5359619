// The CUDA kernels of the attended head, emulated, against the CPU loops (which test_head.cpp checks).
#include <vector>

#include "check.h"
#include "cpu/head.h"
#include "cuda/head.cu"

using namespace dkpnet;
using namespace dkpnet::head;

namespace {

template <typename T>
std::vector<T> random_values(size_t count, float scale = 1.0f) {
  std::vector<T> values(count + 8);  // 8 more, so that misaligned arrays stay inside
  for (T& value : values) value = narrow<T>(scale * (float(rand()) / float(RAND_MAX) - 0.5f));
  return values;
}

template <typename T>
void launch_emulated(const Problem& problem, const T* grad, T* density, T* grad_hidden, float* partials) {
  const unsigned blocks = unsigned(problem.batch * ((problem.height * problem.width + kPart - 1) / kPart));
  const T* none = nullptr;
  float* no_partials = nullptr;
  using Forward = cuda::TileOf<T, false>;
  using Backward = cuda::TileOf<T, true>;
  emulation::launch(blocks, Forward::kThreads, cuda::tail_kernel<Forward>, problem, none, density, no_partials);
  emulation::launch(blocks, Backward::kThreads, cuda::tail_kernel<Backward>, problem, grad, grad_hidden, partials);
}

template <typename T>
void check_case(DType dtype, int batch, int channels, int height, int width, std::vector<std::pair<int, int>> sizes,
                bool channels_last, int offset, double tolerance) {
  constexpr int hidden1 = cuda::kHidden1, hidden2 = cuda::kHidden2;
  const int pixels = height * width, parts = (pixels + kPart - 1) / kPart, size = gradient_size(hidden1, hidden2);
  const auto fine = random_values<T>(size_t(batch) * channels * pixels);
  const auto fine_weight = random_values<T>(size_t(batch) * channels * hidden1, 0.5f);
  // A hidden unit near the kink of its ReLU may be on in one and off in the other: the biases keep them away from it.
  std::vector<float> bias = random_values<float>(size_t(batch) * hidden1), bias2 = random_values<float>(hidden2);
  for (float& value : bias) value += value > 0 ? 40.0f : -40.0f;
  for (float& value : bias2) value += value > 0 ? 900.0f : -900.0f;
  const auto weight2 = random_values<float>(size_t(hidden2) * hidden1, 0.5f);
  const auto weight3 = random_values<float>(hidden2), bias3 = random_values<float>(1);
  const auto grad = random_values<T>(size_t(batch) * pixels);
  std::vector<std::vector<T>> products;
  Problem problem{};
  problem.dtype = dtype, problem.batch = batch, problem.height = height, problem.width = width;
  problem.channels = channels, problem.hidden1 = hidden1, problem.hidden2 = hidden2;
  problem.fine = fine.data() + offset, problem.fine_batch = int64_t(channels) * pixels;
  problem.fine_channel = channels_last ? 1 : pixels, problem.fine_pixel = channels_last ? channels : 1;
  problem.fine_weight = fine_weight.data(), problem.fine_weight_batch = int64_t(channels) * hidden1;
  problem.count = int(sizes.size());
  for (int j = 0; j < problem.count; ++j) {
    products.push_back(random_values<T>(size_t(batch) * sizes[j].first * sizes[j].second * hidden1));
    problem.products[j] = {products[j].data(), sizes[j].first, sizes[j].second};
  }
  problem.bias = bias.data(), problem.weight2 = weight2.data(), problem.bias2 = bias2.data();
  problem.weight3 = weight3.data(), problem.bias3 = bias3.data();

  std::vector<T> density[2], grad_hidden[2];
  std::vector<float> partials[2];
  for (int i = 0; i < 2; ++i) {
    density[i].resize(size_t(batch) * pixels);
    grad_hidden[i].resize(size_t(batch) * pixels * hidden1);
    partials[i].assign(size_t(batch) * parts * size, 1e9f);
  }
  cpu::head().forward({problem, density[0].data()}, 1);
  cpu::head().backward({problem, grad.data(), grad_hidden[0].data(), partials[0].data()}, 1);
  launch_emulated<T>(problem, grad.data(), density[1].data(), grad_hidden[1].data(), partials[1].data());
  for (size_t i = 0; i < density[0].size(); ++i)
    CHECK_NEAR(widen(density[1][i]), widen(density[0][i]), tolerance * 1000);
  for (size_t i = 0; i < grad_hidden[0].size(); ++i)
    CHECK_NEAR(widen(grad_hidden[1][i]), widen(grad_hidden[0][i]), tolerance);
  for (size_t i = 0; i < partials[0].size(); ++i)
    CHECK_NEAR(partials[1][i], partials[0][i], tolerance * (1000 + fabs(partials[0][i])));

  for (const auto& [rows, columns] : sizes) {
    const int64_t vectors = hidden1 * int(sizeof(T)) / 16, count = int64_t(batch) * rows * columns * vectors;
    std::vector<T> out[2];
    for (auto& values : out) values.resize(size_t(batch) * rows * columns * hidden1);
    cpu::head().downsample({dtype, batch, hidden1, height, width, rows, columns, grad_hidden[0].data(), out[0].data()},
                           1);
    emulation::launch(unsigned((count + 255) / 256), 256, cuda::downsample_kernel<T>,
                      static_cast<const T*>(grad_hidden[0].data()), out[1].data(), count, int(vectors), height, width,
                      rows, columns);
    for (size_t i = 0; i < out[0].size(); ++i) CHECK_NEAR(widen(out[1][i]), widen(out[0][i]), tolerance * 10);
  }
}

template <typename T>
void check_type(DType dtype, double tolerance) {
  for (bool channels_last : {false, true}) {
    check_case<T>(dtype, 2, 40, 9, 16, {{5, 8}, {3, 4}}, channels_last, 0, tolerance);  // vectors
    check_case<T>(dtype, 1, 18, 7, 19, {{4, 10}}, channels_last, 0, tolerance);         // odd sizes
    check_case<T>(dtype, 1, 16, 8, 16, {{4, 8}}, channels_last, 1, tolerance);          // misaligned
    check_case<T>(dtype, 1, 70, 25, 24, {}, channels_last, 0, tolerance);               // two chunks, two parts
  }
  check_case<T>(dtype, 2, 0, 11, 13, {{4, 5}, {11, 13}}, false, 0, tolerance);  // no branch at the output's size
  check_case<T>(dtype, 1, 3, 1, 1, {{1, 1}}, false, 0, tolerance);
}

}  // namespace

int main() {
  check_type<float>(DType::f32, 1e-5);
  check_type<bf16>(DType::bf16, 2e-2);
  check_type<f16>(DType::f16, 3e-3);
  emulation::list_barriers();
  return check_result();
}
