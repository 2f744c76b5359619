// reweight on the GPU: 16-byte accesses wherever the arrays are 16-byte aligned, single elements elsewhere.
#include "cuda/reduce.cuh"
#include "math/reweight.h"

namespace dkpnet::cuda {

namespace rw = dkpnet::reweight;

constexpr int kThreads = 256;

template <typename T, int V>
struct alignas(sizeof(T) * V) Pack {
  T at[V];
};
template <typename T>
constexpr int kVector = 16 / sizeof(T);

// One store instruction; from a plain assignment the compiler makes four stores of 4 bytes for sm_80 to sm_90. The
// result is not read again here, so the caches need not keep it.
template <typename T, int V>
__device__ __forceinline__ void store(T* to, const Pack<T, V>& from) {
  if constexpr (sizeof from == 16)
    __stcs(reinterpret_cast<uint4*>(to), bit_cast<uint4>(from));
  else
    *reinterpret_cast<Pack<T, V>*>(to) = from;
}

// ---- forward: any dense layout is one run of elements

// Contiguous: `inner` pixels share a weight. V consecutive elements touch at most two planes if inner >= V.
template <typename T, int V, typename Index>
__global__ void __launch_bounds__(kThreads, 2)
    scale_planes_kernel(const T* x, const T* attention, T* out, Index total, Index inner) {
  const Index at = (Index(blockIdx.x) * kThreads + threadIdx.x) * V;
  if (at >= total) return;
  const Index plane = at / inner, left = inner - (at - plane * inner);  // elements before the next plane
  if (at + V <= total) {
    const Pack<T, V> in = *reinterpret_cast<const Pack<T, V>*>(x + at);
    const wide_t<T> y = widen(attention[plane]), next = left < V ? widen(attention[plane + 1]) : y;
    Pack<T, V> result;
#pragma unroll
    for (int v = 0; v < V; ++v) result.at[v] = rw::scaled(in.at[v], Index(v) < left ? y : next);
    store(out + at, result);
  } else {
    for (Index e = at; e < total; ++e) out[e] = rw::scaled(x[e], widen(attention[e / inner]));
  }
}

// channels_last: the channel runs fastest; V divides the channels.
template <typename T, int V, typename Index>
__global__ void __launch_bounds__(kThreads, 2)
    scale_rows_kernel(const T* x, const T* attention, T* out, Index total, Index channels, Index pixels) {
  const Index at = (Index(blockIdx.x) * kThreads + threadIdx.x) * V;
  if (at >= total) return;
  const Index row = at / channels, channel = at - row * channels;
  const Pack<T, V> in = *reinterpret_cast<const Pack<T, V>*>(x + at);
  const Pack<T, V> y = *reinterpret_cast<const Pack<T, V>*>(attention + row / pixels * channels + channel);
  Pack<T, V> result;
#pragma unroll
  for (int v = 0; v < V; ++v) result.at[v] = rw::scaled(in.at[v], widen(y.at[v]));
  store(out + at, result);
}

// ---- backward

// Contiguous: WARPS warps per plane. With V > 1 the arrays are 16-byte aligned, a plane need not be: single elements up
// to the first aligned one and after the last whole vector.
template <typename T, int V, int WARPS>
__global__ void __launch_bounds__(kThreads, 2)
    backward_planes_kernel(const T* grad, const T* x, const T* attention, T* dx, T* dattention, int64_t planes,
                           int64_t inner) {
  using W = wide_t<T>;
  constexpr int team = WARPS * 32;  // threads of a plane
  __shared__ W partial[kThreads / 32];
  const int64_t plane = int64_t(blockIdx.x) * (kThreads / team) + threadIdx.x / team;
  const int t = threadIdx.x % team;
  W sum = 0;
  if (plane < planes) {
    const W y = widen(attention[plane]);
    const int64_t begin = plane * inner, end = begin + inner;
    int64_t head = (begin + V - 1) / V * V;
    head = head < end ? head : end;
    const int64_t tail = head + (end - head) / V * V;
    const auto single = [&](int64_t e) {
      dx[e] = rw::scaled(grad[e], y);
      sum += rw::share(grad[e], x[e]);
    };
    for (int64_t e = begin + t; e < head; e += team) single(e);
    for (int64_t e = head + int64_t(t) * V; e < tail; e += int64_t(team) * V) {
      const Pack<T, V> g = *reinterpret_cast<const Pack<T, V>*>(grad + e);
      const Pack<T, V> in = *reinterpret_cast<const Pack<T, V>*>(x + e);
      Pack<T, V> result;
#pragma unroll
      for (int v = 0; v < V; ++v) {
        result.at[v] = rw::scaled(g.at[v], y);
        sum += rw::share(g.at[v], in.at[v]);
      }
      store(dx + e, result);
    }
    for (int64_t e = tail + t; e < end; e += team) single(e);
  }
  sum = WARPS == 1 ? warp_sum(sum) : block_sum(sum, partial);
  if (plane < planes && t == 0) dattention[plane] = narrow<T>(sum);
}

constexpr int kLanes = 32, kGroups = kThreads / kLanes;  // channels_last: channel vectors x groups of rows in a block

// channels_last: a block has 32 V channels of one image and `rw::kSplit` of its rows; partial sums go to the workspace
// [batch, splits, channels].
template <typename T, int V>
__global__ void __launch_bounds__(kThreads, 2)
    backward_rows_kernel(const T* grad, const T* x, const T* attention, T* dx, wide_t<T>* workspace, int64_t channels,
                         int64_t pixels, int64_t splits) {
  using W = wide_t<T>;
  __shared__ W sums[kGroups][kLanes][V];
  const int lane = threadIdx.x % kLanes, group = threadIdx.x / kLanes;
  const int64_t tiles = (channels + kLanes * V - 1) / (kLanes * V), part = blockIdx.x / tiles;  // b * splits + split
  const int64_t b = part / splits, first = part % splits * rw::kSplit;
  const int64_t channel = (blockIdx.x % tiles * kLanes + lane) * V;
  const int64_t stop = first + rw::kSplit < pixels ? first + rw::kSplit : pixels;
  W sum[V] = {};
  if (channel < channels) {
    const Pack<T, V> y = *reinterpret_cast<const Pack<T, V>*>(attention + b * channels + channel);
    for (int64_t p = first + group; p < stop; p += kGroups) {
      const int64_t at = (b * pixels + p) * channels + channel;
      const Pack<T, V> g = *reinterpret_cast<const Pack<T, V>*>(grad + at);
      const Pack<T, V> in = *reinterpret_cast<const Pack<T, V>*>(x + at);
      Pack<T, V> result;
#pragma unroll
      for (int v = 0; v < V; ++v) {
        result.at[v] = rw::scaled(g.at[v], widen(y.at[v]));
        sum[v] += rw::share(g.at[v], in.at[v]);
      }
      store(dx + at, result);
    }
  }
#pragma unroll
  for (int v = 0; v < V; ++v) sums[group][lane][v] = sum[v];
  __syncthreads();
  if (group != 0 || channel >= channels) return;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    W total = 0;
    for (int g = 0; g < kGroups; ++g) total += sums[g][lane][v];
    workspace[part * channels + channel + v] = total;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 2)
    sum_splits_kernel(const wide_t<T>* workspace, T* dattention, int64_t total, int64_t channels, int64_t splits) {
  const int64_t at = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= total) return;
  const wide_t<T>* from = workspace + at / channels * splits * channels + at % channels;
  wide_t<T> sum = 0;
  for (int64_t split = 0; split < splits; ++split) sum += from[split * channels];
  dattention[at] = narrow<T>(sum);
}

#ifdef __CUDACC__

// ---- launches

static unsigned blocks(int64_t items, int64_t per_block) {
  return static_cast<unsigned>((items + per_block - 1) / per_block);
}

template <typename... Pointers>
static bool aligned(Pointers... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

template <typename T, int V, typename Index>
static void launch_forward(const rw::Forward& args, int64_t total, cudaStream_t stream) {
  const T *x = static_cast<const T*>(args.x), *attention = static_cast<const T*>(args.attention);
  T* out = static_cast<T*>(args.out);
  const unsigned grid = blocks(total, int64_t(kThreads) * V);
  const Index count = Index(total), channels = Index(args.channels), pixels = Index(args.pixels);
  if (args.channels_last)
    scale_rows_kernel<T, V, Index><<<grid, kThreads, 0, stream>>>(x, attention, out, count, channels, pixels);
  else
    scale_planes_kernel<T, V, Index><<<grid, kThreads, 0, stream>>>(x, attention, out, count, pixels);
}

int reweight_forward(const rw::Forward& args, void* stream) {
  const int64_t total = args.batch * args.channels * args.pixels;
  if (total == 0) return 0;
  with_dtype(args.dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int V = kVector<T>;
    const auto s = static_cast<cudaStream_t>(stream);
    const bool vectors = aligned(args.x, args.out) &&
                         (args.channels_last ? args.channels % V == 0 && aligned(args.attention) : args.pixels >= V);
    const bool small = total < (int64_t(1) << 31);  // then 32-bit divisions suffice
    if (vectors && small)
      launch_forward<T, V, uint32_t>(args, total, s);
    else if (vectors)
      launch_forward<T, V, int64_t>(args, total, s);
    else
      launch_forward<T, 1, int64_t>(args, total, s);
  });
  return cudaGetLastError();
}

template <typename T, int V>
static void launch_backward(const rw::Backward& args, cudaStream_t stream) {
  const T *grad = static_cast<const T*>(args.grad), *x = static_cast<const T*>(args.x);
  const T* attention = static_cast<const T*>(args.attention);
  T *dx = static_cast<T*>(args.dx), *dattention = static_cast<T*>(args.dattention);
  const int64_t channels = args.channels, pixels = args.pixels, planes = args.batch * channels;
  if (args.channels_last) {
    auto* workspace = static_cast<wide_t<T>*>(args.workspace);
    const int64_t splits = rw::splits(pixels);
    const unsigned grid = static_cast<unsigned>(args.batch * splits) * blocks(channels, kLanes * V);
    backward_rows_kernel<T, V>
        <<<grid, kThreads, 0, stream>>>(grad, x, attention, dx, workspace, channels, pixels, splits);
    sum_splits_kernel<T>
        <<<blocks(planes, kThreads), kThreads, 0, stream>>>(workspace, dattention, planes, channels, splits);
  } else if (pixels <= 32 * V * 8) {  // a warp finishes a plane in eight steps
    backward_planes_kernel<T, V, 1>
        <<<blocks(planes, kThreads / 32), kThreads, 0, stream>>>(grad, x, attention, dx, dattention, planes, pixels);
  } else {
    backward_planes_kernel<T, V, kThreads / 32>
        <<<blocks(planes, 1), kThreads, 0, stream>>>(grad, x, attention, dx, dattention, planes, pixels);
  }
}

int reweight_backward(const rw::Backward& args, void* stream) {
  if (args.batch * args.channels == 0) return 0;
  with_dtype(args.dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int V = kVector<T>;
    const bool vectors = aligned(args.grad, args.x, args.dx) &&
                         (!args.channels_last || (args.channels % V == 0 && aligned(args.attention)));
    const auto launch = vectors ? launch_backward<T, V> : launch_backward<T, 1>;
    launch(args, static_cast<cudaStream_t>(stream));
  });
  return cudaGetLastError();
}

#endif  // __CUDACC__

}  // namespace dkpnet::cuda
