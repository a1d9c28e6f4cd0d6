// ops::TwoLayerMode for one instruction set; CMake compiles this source as it does body.cpp. Every number is worked out by
// itself, in the same operations in whichever lane: neighbours cannot change its bits.
#include "ops/two_layer_mode.hpp"

#include "cpu/kernels/body.hpp"
#include "cpu/kernels/decay.hpp"

namespace pydln::PYDLN_ISA {
namespace {

using V = Doubles;
using elementary::as_bits;
using elementary::as_doubles;
constexpr int64_t kLanes = lanes_of<double>;
constexpr int64_t kTile = 256;  // modes, or times, at once

typedef double Loose __attribute__((vector_size(PYDLN_VECTOR_BYTES), may_alias, aligned(8)));
PYDLN_INLINE V load(const double* p) { return *reinterpret_cast<const Loose*>(p); }
PYDLN_INLINE void store(double* p, V x) { *reinterpret_cast<Loose*>(p) = x; }

constexpr std::uint64_t kSignBit = std::uint64_t{1} << 63U;
PYDLN_INLINE V with_sign(V size, V sign) { return as_doubles(as_bits(size) ^ (as_bits(sign) & kSignBit)); }

// What does not depend on time; s >= 0, b turned with it: (a, b, s) -> (a, -b, -s) is a symmetry.
enum Part {
  kA0,
  kB0,
  kS,
  kFlip,
  kKappa,
  kUpper,
  kLower,
  kUpper2,
  kLower2,
  kPlus,
  kUnit,
  kOverPlus,
  kMinus,
  kGap,
  kOpposed,
  kParts
};
struct Mode {
  V of[kParts];
};

PYDLN_INLINE Mode mode(V a0, V given_b0, V given_s) {
  Mode m;
  const V flip = with_sign(splat(1.0), given_s), s = magnitude(given_s), b0 = with_sign(given_b0, given_s), none{};
  const V half = 0.5 * (b0 - a0) * (b0 + a0), size = magnitude(half);
  const V large = s > size ? s : size, small = s > size ? size : s;
  const SignedBits still = large == 0;
  const V ratio = small / (still ? splat(1.0) : large), root = square_root(fma(ratio, ratio, splat(1.0)));
  const V kappa = large * root;
  // The larger component by a sum, the smaller by division, to keep their digits.
  const V of_half = still ? none : (s > size ? ratio : splat(1.0)) / root;
  const V of_s = ((still | (s > size)) ? splat(1.0) : ratio) / root;
  const V greater = square_root(0.5 * (1.0 + of_half)), lesser = 0.5 * of_s / greater;
  const V upper = half < 0 ? greater : lesser, lower = half < 0 ? lesser : greater;
  const SignedBits opposed = ((a0 > 0) & (b0 < 0)) | ((a0 < 0) & (b0 > 0));
  // z+ vanishes on the saddle's stable manifold a0 = -b0; that factor taken out, what is left adds like signs only.
  const V away = a0 + b0;
  const V along = fma(away, lower, V(a0 * (away / (2.0 * (still ? splat(1.0) : kappa))) * (a0 - b0) / (upper + lower)));
  const V plus = (opposed & ~still) ? along : fma(a0, upper, V(b0 * lower));
  m.of[kA0] = a0;
  m.of[kB0] = b0;
  m.of[kS] = s;
  m.of[kFlip] = flip;
  m.of[kKappa] = kappa;
  m.of[kUpper] = upper;
  m.of[kLower] = lower;
  const V more = 0.5 * (1.0 + of_half), rest = lesser * lesser;
  m.of[kUpper2] = half < 0 ? more : rest;
  m.of[kLower2] = half < 0 ? rest : more;
  m.of[kPlus] = plus;
  m.of[kUnit] = magnitude(plus) < 0x1p-960 ? splat(0x1p120) : splat(1.0);
  m.of[kOverPlus] = 1.0 / (magnitude(plus) * m.of[kUnit]);
  m.of[kMinus] = fma(a0, lower, V(-b0 * upper));
  m.of[kGap] = fma(-a0, b0, s);
  m.of[kOpposed] = opposed ? splat(1.0) : none;
  return m;
}

struct State {
  V a, b, gap;
};
PYDLN_INLINE State at(const Mode& m, V t) {
  const V kappa = m.of[kKappa], plus = m.of[kPlus], minus = m.of[kMinus], k = kappa * t;
  const V k_rest = k < 700 ? fma(kappa, t, -k) : V{};  // of the product, where it has any
  const Decay fast = decay(2.0 * kappa, t);
  const V size = magnitude(plus);
  const V grown = elementary::exp<double>(k, k_rest).times(size);
  // Divide through by the growing exponential once it leads: nothing overflows, and plus = 0 stays an exact zero.
  const SignedBits leads = grown > 1;
  const V scale = leads ? 1.0 / grown : splat(1.0), lead = leads ? splat(1.0) : grown;
  const V scaled = minus * scale;
  const V square = fma(V(lead * lead), fast.integral, fma(V(scaled * scaled), fast.integral, V(scale * scale)));
  const V root = square_root(square);
  // Strengths of one sign: the entries of e^{Ft}, all >= 0, act on them without cancellation, from a0 = 0 too. Opposed
  // ones cancel on the way to the saddle, and there the eigenvectors keep the digits.
  const SignedBits direct = (m.of[kOpposed] == 0) | (k < 0.7);
  const V mixed = m.of[kS] * fast.integral;
  const V unit = leads ? m.of[kUnit] : splat(1.0);
  const V boost =
      leads ? m.of[kOverPlus] : elementary::exp<double>(elementary::at_most<double>(k, 700.0), k_rest).value();
  const V first = fma(m.of[kA0], fma(fast.value, m.of[kLower2], m.of[kUpper2]), V(m.of[kB0] * mixed)) * unit * boost;
  const V second = fma(m.of[kB0], fma(fast.value, m.of[kUpper2], m.of[kLower2]), V(m.of[kA0] * mixed)) * unit * boost;
  State x;
  x.a = first;
  x.b = second;
  if (truth(~direct)) {
    const V fade = scaled * elementary::exp<double>(-k, -k_rest).value(), with = with_sign(lead, plus);
    x.a = direct ? first : fma(m.of[kUpper], with, V(m.of[kLower] * fade));
    x.b = direct ? second : fma(m.of[kLower], with, V(-m.of[kUpper] * fade));
  }
  const SignedBits begins = t == 0;
  x.a = begins ? m.of[kA0] : x.a / root;
  x.b = with_sign(begins ? m.of[kB0] : x.b / root, m.of[kFlip]);
  const V ratio = begins ? splat(1.0) : scale / root;
  x.gap = with_sign(m.of[kGap] * ratio * ratio, m.of[kFlip]);
  return x;
}

class Work {
 public:
  explicit Work(const ops::TwoLayerMode& op) : op_(op) {}

  // All the times of some modes: those are many, or these are.
  void run(int64_t first, int64_t count) {
    for (int64_t j = 0; j < count; j += kLanes) {
      const int64_t lanes = count - j < kLanes ? count - j : kLanes;
      V a0{}, b0{}, s{};
      for (int64_t i = 0; i < kLanes; ++i) {
        const int64_t k = first + (j + i < count ? j + i : count - 1);
        a0[i] = op_.a0[k];
        b0[i] = op_.b0[k];
        s[i] = op_.s[k];
      }
      const Mode modes = mode(a0, b0, s);
      if (op_.times < kLanes)
        across(modes, first + j, lanes);
      else
        for (int64_t i = 0; i < lanes; ++i) along(modes, i, first + j + i);
    }
  }

 private:
  // One mode, a time a lane.
  void along(const Mode& modes, int64_t lane, int64_t k) {
    Mode one;
    for (int64_t p = 0; p < kParts; ++p) one.of[p] = splat(double(modes.of[p][lane]));
    const double* t = op_.t + k * op_.t_stride;
    for (int64_t i = 0; i < op_.times; i += kLanes) {
      const int64_t from = i + kLanes <= op_.times ? i : op_.times - kLanes;  // the last overlap the others
      const State x = at(one, load(t + from));
      store(op_.a + k * op_.times + from, x.a);
      store(op_.b + k * op_.times + from, x.b);
      if (op_.gap) store(op_.gap + k * op_.times + from, x.gap);
    }
  }
  // A mode a lane, one time after the other.
  void across(const Mode& modes, int64_t k, int64_t lanes) {
    for (int64_t j = 0; j < op_.times; ++j) {
      V t{};
      for (int64_t i = 0; i < lanes; ++i) t[i] = op_.t[(k + i) * op_.t_stride + j];
      const State x = at(modes, t);
      for (int64_t i = 0; i < lanes; ++i) {
        const int64_t to = (k + i) * op_.times + j;
        op_.a[to] = x.a[i];
        op_.b[to] = x.b[i];
        if (op_.gap) op_.gap[to] = x.gap[i];
      }
    }
  }

  const ops::TwoLayerMode& op_;
};

}  // namespace

void two_layer_mode(const ops::TwoLayerMode& op, Control& control) {
  const int64_t together = op.times < kTile ? (kTile + op.times - 1) / op.times : 1;
  const int64_t tiles = (op.modes + together - 1) / together;
  Work work(op);
  for (int64_t i = take_member(control); i < tiles && !cancelled(control); i = take_member(control)) {
    const int64_t first = i * together;
    work.run(first, first + together < op.modes ? together : op.modes - first);
  }
}

}  // namespace pydln::PYDLN_ISA
