#include "cpu/reweight.h"

#include "cpu/memory.h"
#include "cpu/parallel.h"

namespace dkpnet::cpu::DKPNET_ISA {

namespace rw = dkpnet::reweight;

constexpr int64_t kGrain = 1 << 16;  // elements that are worth a thread
// A long float sum loses digits, a double one loses speed: float over a block of elements (or rows), double over the
// blocks.
constexpr int64_t kBlock = 512, kRowBlock = 32;

static int64_t per_item(int64_t elements) { return elements > 0 ? (kGrain + elements - 1) / elements : 1; }
static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// channels_last: the channels that are worked on side by side, at most 512 (the longer what is read in one piece, the
// better), and their attention, widened once.
template <typename T>
struct Stripe {
  static constexpr int64_t most = 512;
  int64_t width;
  wide_t<T> y[most];
  Stripe(const T* attention, int64_t channels) : width(smaller(channels, most)) {
    for (int64_t c = 0; c < width; ++c) y[c] = widen(attention[c]);
  }
};

template <typename T>
static void forward_of(const rw::Forward& args, int threads) {
  const T *x = static_cast<const T*>(args.x), *attention = static_cast<const T*>(args.attention);
  T* out = static_cast<T*>(args.out);
  const int64_t batch = args.batch, channels = args.channels, pixels = args.pixels;
  prefer_huge_pages(out, batch * channels * pixels * int64_t(sizeof(T)));
  if (args.channels_last) {
    parallel_for(batch * pixels, per_item(channels), threads, [=](int64_t begin, int64_t end) {
      for (int64_t row = begin, stop; row < end; row = stop) {
        const int64_t image = row / pixels;
        stop = smaller((image + 1) * pixels, end);
        for (int64_t first = 0; first < channels; first += Stripe<T>::most) {
          const Stripe<T> stripe(attention + image * channels + first, channels - first);
          for (int64_t r = row; r < stop; ++r) {
            const T* from = x + r * channels + first;
            T* to = out + r * channels + first;
#pragma omp simd
            for (int64_t c = 0; c < stripe.width; ++c) to[c] = rw::scaled(from[c], stripe.y[c]);
          }
        }
      }
    });
  } else {
    parallel_for(batch * channels, per_item(pixels), threads, [=](int64_t begin, int64_t end) {
      for (int64_t plane = begin; plane < end; ++plane) {
        const wide_t<T> y = widen(attention[plane]);
        const T* from = x + plane * pixels;
        T* to = out + plane * pixels;
#pragma omp simd
        for (int64_t i = 0; i < pixels; ++i) to[i] = rw::scaled(from[i], y);
      }
    });
  }
}

template <typename T>
static void backward_of(const rw::Backward& args, int threads) {
  using W = wide_t<T>;
  const T *grad = static_cast<const T*>(args.grad), *x = static_cast<const T*>(args.x);
  const T* attention = static_cast<const T*>(args.attention);
  T *dx = static_cast<T*>(args.dx), *dattention = static_cast<T*>(args.dattention);
  const int64_t batch = args.batch, channels = args.channels, pixels = args.pixels;
  prefer_huge_pages(dx, batch * channels * pixels * int64_t(sizeof(T)));
  if (args.channels_last) {
    int64_t width = Stripe<T>::most;  // narrower where threads would have nothing to do: the sums are the same
    const auto stripes = [=](int64_t width) { return (channels + width - 1) / width; };
    while (width > 64 && batch * stripes(width) < threads) width /= 2;
    const int64_t count = stripes(width);
    parallel_for(batch * count, per_item(width * pixels), threads, [=](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t image = item / count, first = item % count * width;
        const Stripe<T> stripe(attention + image * channels + first, smaller(width, channels - first));
        W partial[Stripe<T>::most] = {};
        double total[Stripe<T>::most] = {};
        for (int64_t p = 0; p < pixels; ++p) {
          const int64_t at = (image * pixels + p) * channels + first;
          const T *g = grad + at, *from = x + at;
          T* to = dx + at;
#pragma omp simd
          for (int64_t c = 0; c < stripe.width; ++c) {
            to[c] = rw::scaled(g[c], stripe.y[c]);
            partial[c] += rw::share(g[c], from[c]);
          }
          if ((p + 1) % kRowBlock == 0 || p + 1 == pixels) {
            for (int64_t c = 0; c < stripe.width; ++c) total[c] += partial[c], partial[c] = 0;
          }
        }
        for (int64_t c = 0; c < stripe.width; ++c) dattention[image * channels + first + c] = narrow<T>(W(total[c]));
      }
    });
  } else {
    parallel_for(batch * channels, per_item(pixels), threads, [=](int64_t begin, int64_t end) {
      for (int64_t plane = begin; plane < end; ++plane) {
        const W y = widen(attention[plane]);
        const T *g = grad + plane * pixels, *from = x + plane * pixels;
        T* to = dx + plane * pixels;
        double total = 0;
        for (int64_t start = 0; start < pixels; start += kBlock) {
          const int64_t stop = smaller(start + kBlock, pixels);
          W partial = 0;
#pragma omp simd reduction(+ : partial)
          for (int64_t i = start; i < stop; ++i) {
            to[i] = rw::scaled(g[i], y);
            partial += rw::share(g[i], from[i]);
          }
          total += partial;
        }
        dattention[plane] = narrow<T>(W(total));
      }
    });
  }
}

static void forward(const rw::Forward& args, int threads) {
  with_dtype(args.dtype, [&](auto type) { forward_of<decltype(type)>(args, threads); });
}

static void backward(const rw::Backward& args, int threads) {
  with_dtype(args.dtype, [&](auto type) { backward_of<decltype(type)>(args, threads); });
}

const ReweightKernels reweight{forward, backward};

}  // namespace dkpnet::cpu::DKPNET_ISA
