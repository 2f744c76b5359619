// Tiles of pixels and channels whose sums stay in registers (tile.h), chunks of pixels from a queue.
#include "cpu/projection.h"

#include "cpu/queue.h"
#include "cpu/tile.h"

namespace dkpnet::cpu::DKPNET_ISA {

using namespace projection;

constexpr int kChunk = 512;    // pixels that a thread takes at a time
constexpr int kWidened = 256;  // values of a pixel that are widened at a time, where its words are not read as they lie

template <typename T, bool pairs, typename Out, Activation kind>
struct Pixels {
  const Forward& f;
  const int out_width = (f.out_channels + kOutUnit - 1) / kOutUnit * kOutUnit;

  // Pixels [begin, end) of all images.
  void run(int64_t begin, int64_t end) const {
    constexpr int most = kTileVectors * kLanes;
    for (int n = 0; n < out_width; n += most)
      for_tiles(int(end - begin), out_width - n < most ? out_width - n : most,
                [&](auto tile, int pixel) DKPNET_INLINED {
                  tile.read(f.bias + n, 0);
                  add(tile, begin + pixel, n);
                  finish(tile, begin + pixel, n);
                });
  }

  template <typename Tile>
  DKPNET_INLINED void add(Tile& tile, int64_t pixel, int n) const {
    constexpr int per_word = pairs ? 2 : 1;
    const int channels = f.in_channels;
    const T* in = static_cast<const T*>(f.in) + pixel * channels;
    const float* weight = static_cast<const float*>(f.weight) + n;
    if constexpr (sizeof(T) * per_word == sizeof(float)) {
      const int words = channels / per_word;
      return tile.add(Source<pairs>{reinterpret_cast<const Word<pairs>*>(in), words, 0, 1, words}, weight, out_width);
    }
    float values[Tile::pixels * kWidened];
    for (int k = 0; k < channels; k += kWidened) {
      const int count = channels - k < kWidened ? channels - k : kWidened;
      for (int p = 0; p < Tile::pixels; ++p)
        for (int i = 0; i < count; i += kLanes)
          store(values + p * kWidened + i, load(in + p * channels + k + i, count - i));
      tile.add(Source<false>{values, kWidened, 0, 1, count}, weight + int64_t(k) * out_width, out_width);
    }
  }

  template <typename Tile>
  DKPNET_INLINED void finish(const Tile& tile, int64_t pixel, int n) const {
    float sums[Tile::pixels * Tile::width + kLanes];  // the last vector may be read past the tile
    tile.write(sums, Tile::width);
    const int channels = f.out_channels - n < Tile::width ? f.out_channels - n : Tile::width;
    for (int p = 0; p < Tile::pixels; ++p) {
      Out* out = static_cast<Out*>(f.out) + (pixel + p) * f.out_channels + n;
      const Out* coarse = f.coarse ? coarse_of(pixel + p) + n : nullptr;
      for (int i = 0; i < channels; i += kLanes) {
        Vector sum = load(sums + p * Tile::width + i);
        if (coarse) sum += load(coarse + i, channels - i);
        store(out + i, bounded<kind>(sum), channels - i);
      }
    }
  }

  const Out* coarse_of(int64_t pixel) const {
    const int64_t row = pixel / f.width, x = pixel % f.width, image = row / f.height, y = row % f.height;
    const int64_t at = (image * (f.height / 2) + y / 2) * (f.width / 2) + x / 2;
    return static_cast<const Out*>(f.coarse) + at * f.out_channels;
  }
};

// Calls body(T{}, pairs, Out{}), the second as a constant.
template <typename Body>
static void with_types(const Forward& f, const Body& body) {
  if (f.dtype == DType::f32) return body(float{}, std::false_type{}, float{});
  if constexpr (kHasPairs)
    if (f.pairs) return body(bf16{}, std::true_type{}, bf16{});
  f.out_dtype == DType::f32 ? body(bf16{}, std::false_type{}, float{}) : body(bf16{}, std::false_type{}, bf16{});
}

static void forward(const Forward& f, int threads) {
  const int64_t pixels = f.batch * f.height * f.width, chunks = (pixels + kChunk - 1) / kChunk;
  with_activation(f.activation, [&](auto kind) {
    with_types(f, [&](auto type, auto pairs, auto out) {
      const Pixels<decltype(type), pairs.value, decltype(out), kind.value> rows{f};
      from_queue(chunks, chunks / 4 < threads ? int(chunks / 4) : threads, [&](int64_t chunk, int64_t) {
        rows.run(chunk * kChunk, chunk + 1 < chunks ? (chunk + 1) * kChunk : pixels);
      });
    });
  });
}

const ProjectionKernels projection_kernels{forward};

}  // namespace dkpnet::cpu::DKPNET_ISA
