// csrc/math/philox.h: known answers, and the normals against Box-Muller in float64.
#include "check.h"
#include "math/philox.h"

using namespace dkpnet;

namespace {

void test_known_answers() {
  // Random123's kat_vectors for philox4x32-10 with the counters that (q, stream, 0) can reach.
  const PhiloxBlock zero = philox(0, 0, 0);
  CHECK(zero.word[0] == 0x6627e8d5u && zero.word[1] == 0xe169c58du && zero.word[2] == 0xbc57ac4cu &&
        zero.word[3] == 0x9b00dbd8u);
  const PhiloxBlock other = philox(0, 0, kDropoutStream);
  CHECK(other.word[0] != zero.word[0]);
}

void test_normals() {
  const uint64_t seed = 0xfedcba9876543210ull;
  double sum = 0, squares = 0;
  const int count = 40000;
  for (int e = 0; e < count; ++e) {
    const uint64_t element = (uint64_t(1) << 40) + uint64_t(e);
    const PhiloxBlock block = philox(seed, element >> 2, kNormalStream);
    const uint32_t a = block.word[element & 2], b = block.word[(element & 2) + 1];
    const double radius = sqrt(-2 * log(((a >> 8) + 1) * 0x1p-24)), angle = 6.283185307179586477 * ((b >> 8) * 0x1p-24);
    const float want = float(radius * (element & 1 ? sin(angle) : cos(angle))), got = normal(seed, element);
    CHECK(abs(bit_cast<int32_t>(got) - bit_cast<int32_t>(want)) <= 2);
    sum += got;
    squares += double(got) * got;
  }
  CHECK(fabs(sum / count) < 0.025 && fabs(squares / count - 1) < 0.035);  // five standard deviations
}

void test_dropout() {
  int kept_ones = 0;
  for (uint64_t e = 0; e < 10000; ++e) {
    CHECK(kept(7, e, 0));
    kept_ones += kept(7, e, uint32_t(0.2 * 4294967296.0));
    CHECK(kept(7, e, 0x80000000u) == (philox(7, e / 4, kDropoutStream).word[e % 4] >= 0x80000000u));
  }
  CHECK(abs(kept_ones - 8000) < 200);
}

}  // namespace

int main() {
  test_known_answers();
  test_normals();
  test_dropout();
  return check_result();
}
