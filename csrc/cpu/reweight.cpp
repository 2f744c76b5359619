#include "cpu/reweight.h"

#include "cpu/memory.h"
#include "cpu/parallel.h"

namespace dkpnet::cpu::DKPNET_ISA {

namespace rw = dkpnet::reweight;

constexpr int64_t kGrain = 1 << 16;  // elements that are worth a thread
// A long float sum loses digits, a double one loses speed: float over a block of elements (or rows), double over the
// blocks.
constexpr int64_t kBlock = 512, kRowBlock = 32;
constexpr int64_t kChannels = 512;  // channels_last: channels summed side by side, the more the longer each read

static int64_t per_item(int64_t elements) { return elements > 0 ? (kGrain + elements - 1) / elements : 1; }

static void forward(const rw::Forward& args, int threads) {
  with_dtype(args.dtype, [&](auto type) {
    using T = decltype(type);
    const T *x = static_cast<const T*>(args.x), *attention = static_cast<const T*>(args.attention);
    T* out = static_cast<T*>(args.out);
    const int64_t batch = args.batch, channels = args.channels, pixels = args.pixels;
    prefer_huge_pages(out, batch * channels * pixels * int64_t(sizeof(T)));
    if (args.channels_last) {
      parallel_each(batch * pixels, per_item(channels), threads, [=](int64_t row) {
        const T* y = attention + row / pixels * channels;
        const T* from = x + row * channels;
        T* to = out + row * channels;
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) to[c] = rw::scaled(from[c], widen(y[c]));
      });
    } else {
      parallel_each(batch * channels, per_item(pixels), threads, [=](int64_t plane) {
        const wide_t<T> y = widen(attention[plane]);
        const T* from = x + plane * pixels;
        T* to = out + plane * pixels;
#pragma omp simd
        for (int64_t i = 0; i < pixels; ++i) to[i] = rw::scaled(from[i], y);
      });
    }
  });
}

static void backward(const rw::Backward& args, int threads) {
  with_dtype(args.dtype, [&](auto type) {
    using T = decltype(type);
    using W = wide_t<T>;
    const T *grad = static_cast<const T*>(args.grad), *x = static_cast<const T*>(args.x);
    const T* attention = static_cast<const T*>(args.attention);
    T *dx = static_cast<T*>(args.dx), *dattention = static_cast<T*>(args.dattention);
    const int64_t batch = args.batch, channels = args.channels, pixels = args.pixels;
    prefer_huge_pages(dx, batch * channels * pixels * int64_t(sizeof(T)));
    if (args.channels_last) {
      int64_t most = kChannels;  // fewer where threads would have nothing to do: the sums stay the same
      while (most > 64 && batch * ((channels + most - 1) / most) < threads) most /= 2;
      const int64_t groups = (channels + most - 1) / most;
      parallel_each(batch * groups, per_item(most * pixels), threads, [=](int64_t item) {
        const int64_t b = item / groups, first = item % groups * most;
        const int64_t width = channels - first < most ? channels - first : most;
        const T* y = attention + b * channels + first;
        W partial[kChannels] = {};
        double total[kChannels] = {};
        for (int64_t p = 0; p < pixels; ++p) {
          const int64_t at = (b * pixels + p) * channels + first;
#pragma omp simd
          for (int64_t c = 0; c < width; ++c) {
            dx[at + c] = rw::scaled(grad[at + c], widen(y[c]));
            partial[c] += rw::share(grad[at + c], x[at + c]);
          }
          if ((p + 1) % kRowBlock == 0 || p + 1 == pixels) {
            for (int64_t c = 0; c < width; ++c) total[c] += partial[c], partial[c] = 0;
          }
        }
        for (int64_t c = 0; c < width; ++c) dattention[b * channels + first + c] = narrow<T>(W(total[c]));
      });
    } else {
      parallel_each(batch * channels, per_item(pixels), threads, [=](int64_t plane) {
        const W y = widen(attention[plane]);
        const T *g = grad + plane * pixels, *from = x + plane * pixels;
        T* to = dx + plane * pixels;
        double total = 0;
        for (int64_t start = 0; start < pixels; start += kBlock) {
          const int64_t stop = start + kBlock < pixels ? start + kBlock : pixels;
          W partial = 0;
#pragma omp simd reduction(+ : partial)
          for (int64_t i = start; i < stop; ++i) {
            to[i] = rw::scaled(g[i], y);
            partial += rw::share(g[i], from[i]);
          }
          total += partial;
        }
        dattention[plane] = narrow<T>(W(total));
      });
    }
  });
}

const ReweightKernels reweight{forward, backward};

}  // namespace dkpnet::cpu::DKPNET_ISA
