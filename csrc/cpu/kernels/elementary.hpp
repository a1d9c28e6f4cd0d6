// Elementary functions of vectors: a few instructions a lane without branches or tables, so that every instruction set that
// fuses multiply-adds gives the same bits.
#pragma once

#include "cpu/kernels/vector.hpp"

namespace pydln::PYDLN_ISA {

using Doubles = Vector<double>::type;

namespace elementary {

PYDLN_INLINE Doubles as_doubles(Bits x) { return reinterpret_cast<Doubles&>(x); }
PYDLN_INLINE Bits as_bits(Doubles x) { return reinterpret_cast<Bits&>(x); }

// c[0] + z (c[1] + z (...))
template <class T, int N>
PYDLN_INLINE typename Vector<T>::type polynomial(const T (&c)[N], typename Vector<T>::type z) {
  typename Vector<T>::type sum = splat(c[N - 1]);
#pragma GCC unroll 24
  for (int k = N - 2; k >= 0; --k) sum = fma(sum, z, splat(c[k]));
  return sum;
}

// The same in two chains half as long, where nothing else fills the time that each waits for its last step.
template <int N>
PYDLN_INLINE Doubles split_polynomial(const double (&c)[N], Doubles z) {
  static_assert(N % 2 == 0);
  const Doubles square = z * z;
  Doubles even = splat(c[N - 2]), odd = splat(c[N - 1]);
#pragma GCC unroll 16
  for (int k = N - 4; k >= 0; k -= 2) {
    even = fma(even, square, splat(c[k]));
    odd = fma(odd, square, splat(c[k + 1]));
  }
  return fma(odd, z, even);
}

// Adding this rounds a double below 2^51 to a whole number, which then stands in the lowest bits.
inline constexpr double kWhole = 6755399441055744.0;  // 1.5 × 2^52
inline constexpr std::uint64_t kWholeBits = 0x4338000000000000;

// ln x for x > 0, normal: x = 2^e m with m from sqrt(1/2) to sqrt(2), ln m = 2 artanh((m - 1) / (m + 1)) as a series.
PYDLN_INLINE Doubles log(Doubles x) {
  constexpr std::uint64_t kRootOfHalf = 0x3FE6A09E667F3BCD;
  constexpr double kLn2 = 0.693147180559945309417;
  static constexpr double kOdd[] = {1.0,      1.0 / 3,  1.0 / 5,  1.0 / 7,  1.0 / 9, 1.0 / 11,
                                    1.0 / 13, 1.0 / 15, 1.0 / 17, 1.0 / 19, 1.0 / 21};
  Bits shifted = as_bits(x) - kRootOfHalf;
  const SignedBits e = reinterpret_cast<SignedBits&>(shifted) >> 52;
  const Doubles m = as_doubles(as_bits(x) - (reinterpret_cast<const Bits&>(e) << 52U));
  const Doubles exponent = as_doubles(reinterpret_cast<const Bits&>(e) + kWholeBits) - kWhole;
  const Doubles s = (m - 1.0) / (m + 1.0), z = s * s;
  return fma(exponent, splat(kLn2), Doubles(2.0 * s * polynomial(kOdd, z)));
}

// e^x for |x| < 700: x = n ln 2 + r, |r| <= ln 2 / 2, and e^r as a polynomial of which 3e-18 is missing (the Chebyshev
// series, cut). The 1 is added last, to what has smaller roundings: 2.2e-16 of e^x, measured.
PYDLN_INLINE Doubles exp(Doubles x) {
  constexpr double kPerLn2 = 1.442695040888963407360;
  constexpr double kLn2 = 0x1.62e42fef8p-1, kLn2Rest = 0x1.1cf79abc9e3b4p-36;  // the first of 34 bits: n kLn2 is exact
  static constexpr double kC[] = {0.0,
                                  1.0,
                                  0.5000000000000018406,
                                  0.1666666666666670245,
                                  0.041666666666487938476,
                                  0.0083333333333095065775,
                                  0.0013888888952356136183,
                                  1.9841269909260645948e-4,
                                  2.4801485438447380967e-5,
                                  2.755722491836886848e-6,
                                  2.7632655759332030799e-7,
                                  2.5114882786996687342e-8};
  const Doubles whole = fma(x, splat(kPerLn2), splat(kWhole)), n = whole - kWhole;
  const Doubles r = fma(n, splat(-kLn2Rest), fma(n, splat(-kLn2), x));
  return as_doubles(as_bits(1.0 + split_polynomial(kC, r)) + (as_bits(whole) << 52U));
}

// ---- exponentials, error function, normal distribution: float64 and float32 ----------------------------------------------
// Coefficients interpolate at Chebyshev's nodes; the error of each is below a tenth of a unit in the last place.

template <class T>
struct Format;
template <>
struct Format<double> {
  using Word = Bits;
  static constexpr unsigned kMantissa = 52;
  static constexpr std::uint64_t kSign = std::uint64_t{1} << 63U;
  static constexpr std::uint64_t kUpper = ~std::uint64_t{0} << 27U;  // half of the digits: their square is exact
  static constexpr double kWhole = elementary::kWhole;
  static constexpr double kLn2 = 0x1.62e42fef8p-1, kLn2Rest = 0x1.1cf79abc9e3b4p-36;
  static constexpr int kBias = 1023;
  static constexpr double kFlat = 350;   // e^-2x is a normal number up to there
  static constexpr double kSteep = 800;  // e^x is 0 or infinite beyond
  static constexpr double kFar = 40;     // of the normal distribution
  // (e^r - 1 - r) / r^2
  static constexpr double kGrown[] = {0.50000000000000010211,   0.16666666666666667452,   0.041666666666624160921,
                                      0.008333333333330064374,  0.0013888888917197209411, 0.00019841269863040922346,
                                      2.4801521321606648323e-5, 2.7557268479724002848e-6, 2.7620076242527253488e-7,
                                      2.5100376111361420084e-8};
  // (e^2h - 1 - 2h) / 2h^2, -ln 2 / 4 - 1/20 <= h <= ln 2 / 4 - 1/20: the least error relative to e^2h - 1
  static constexpr double kDoubled[] = {0.99999999999999900324,   0.66666666666667083699,    0.33333333333410291411,
                                        0.13333333333361039127,   0.044444444285635543661,   0.012698412200111560959,
                                        0.0031746149875088975772, 0.00070553190141675003182, 0.00014086555796836170292,
                                        0.00002341512902078652414};
  // (artanh s / s - 1) / s^2 of s^2 <= 1/9
  static constexpr double kArtanh[] = {0.33333333333333333443,  0.19999999999999761253,  0.14285714285800049646,
                                       0.11111111099118385279,  0.090909099489813571913, 0.076922719824302746434,
                                       0.066675893157246279183, 0.0586713953065159873,   0.05422589197440007411,
                                       0.037460718977753836504, 0.078152889004614252231};
  // erf x / x - 1 of x^2 <= 1
  static constexpr double kErf[] = {0.12837916709551256654,    -0.37612638903183540438,   0.11283791670945006266,
                                    -0.02686617064323777036,   0.0052239776071164227321,  -0.00085483259753896920806,
                                    0.00012055294904839707917, -1.4924736907419660338e-5, 1.644742470331736241e-6,
                                    -1.6208483801871705902e-7, 1.3720064546777685604e-8,  -7.7958988270021422416e-10};
  // (x + 4) e^(x^2) erfc x of u = 4 / (x + 4), 0 <= x <= 28
  static constexpr double kNear = 4;
  static constexpr double kRootMissing = -3.8669173253811654e-16;  // of kNear sqrt(2)
  static constexpr double kTail[] = {
      0.56418958350921950305, 0.56418958599986167558,   0.5465585867184889059,   0.51129812599402714694,
      0.46004038254729380744, 0.39629792932123091373,   0.32318071644092188054,  0.25593748684419443419,
      0.15303227040155710634, 0.20750172001576192004,   -0.18879957986994938466, 0.60150100494525932766,
      -1.0062683070005420375, 1.3783506292073775045,    -1.371005632678402477,   0.78865709059669584301,
      0.07691518234756659834, -0.72087376841987320745,  0.81161385242730293496,  -0.5056190583443507264,
      0.19006984492026579645, -0.040577978912824417062, 0.0038103329889169573614};
};
template <>
struct Format<float> {
  typedef std::uint32_t Word __attribute__((vector_size(PYDLN_VECTOR_BYTES), may_alias));
  static constexpr unsigned kMantissa = 23;
  static constexpr std::uint32_t kSign = std::uint32_t{1} << 31U;
  static constexpr std::uint32_t kUpper = ~std::uint32_t{0} << 12U;
  static constexpr float kWhole = 12582912.0F;
  static constexpr float kLn2 = 0x1.62e4p-1F, kLn2Rest = 0x1.7f7d1cp-20F;
  static constexpr int kBias = 127;
  static constexpr float kFlat = 40;
  static constexpr float kSteep = 120;
  static constexpr float kFar = 15;
  static constexpr float kGrown[] = {0.5F, 0.1666657702F, 0.04166655466F, 0.008363173247F, 0.001392617634F};
  static constexpr float kDoubled[] = {0.9999997666F, 0.6666697657F, 0.3334022353F, 0.1331859977F, 0.04007870973F};
  static constexpr float kArtanh[] = {0.3333333366F, 0.1999985317F, 0.14296179F, 0.108532879F, 0.1161216461F};
  static constexpr float kErf[] = {0.1283791658F,   -0.3761262667F,    0.1128359472F,  -0.02685421201F,
                                   0.005189087423F, -0.0008016864287F, 7.875875063e-5F};
  // of u = 2 / (x + 2), 0 <= x <= 11
  static constexpr float kNear = 2;
  static constexpr float kRootMissing = 4.840646841791588e-08F;
  static constexpr float kTail[] = {0.5641772083F, 0.5645086242F,  0.4902379026F,   0.3723570594F,
                                    0.1038310427F, 0.08889331028F, -0.07884031538F, -0.5361565256F,
                                    0.7300362536F, -0.3679647789F, 0.06892022351F};
};

template <class T>
using Of = typename Vector<T>::type;
template <class T>
PYDLN_INLINE typename Format<T>::Word word_of(Of<T> x) {
  return (typename Format<T>::Word)x;
}
template <class T>
PYDLN_INLINE Of<T> number_of(typename Format<T>::Word x) {
  return (Of<T>)x;
}
template <class T>
PYDLN_INLINE Of<T> with_sign_of(Of<T> size, Of<T> x) {
  return number_of<T>(word_of<T>(size) | (word_of<T>(x) & Format<T>::kSign));
}
// Not a NaN, which stays.
template <class T>
PYDLN_INLINE Of<T> at_most(Of<T> x, T bound) {
  return x > bound ? splat(bound) : x;
}
template <class T>
PYDLN_INLINE Of<T> at_least(Of<T> x, T bound) {
  return x < bound ? splat(bound) : x;
}

// x + rest = n ln 2 + r, |r| <= ln 2 / 2: n as kWhole + n, and e^r - 1.
template <class T>
struct Grown {
  Of<T> whole, rest;
};
template <class T>
PYDLN_INLINE Grown<T> grown(Of<T> x, Of<T> rest) {
  using F = Format<T>;
  const Of<T> whole = fma(x, splat(T(1.442695040888963407360)), splat(F::kWhole)), n = whole - F::kWhole;
  const Of<T> r = fma(n, splat(-F::kLn2Rest), fma(n, splat(-F::kLn2), x)) + rest;
  return {whole, fma(Of<T>(r * r), polynomial(F::kGrown, r), r)};
}
// 2^n of a normal number.
template <class T>
PYDLN_INLINE Of<T> power_of_two(typename Format<T>::Word n) {
  return number_of<T>((n + static_cast<typename Format<T>::Word>(typename Format<T>::Word{} + Format<T>::kBias))
                      << Format<T>::kMantissa);
}
// e^(x + rest), from what is less than the least number to what is more than the greatest: (1 + rest) 2^n, 2^n in two factors.
template <class T>
struct Power {
  Of<T> rest, first, second;
  PYDLN_INLINE Of<T> times(Of<T> factor) const { return fma(factor, rest, factor) * first * second; }
  PYDLN_INLINE Of<T> value() const { return (1 + rest) * first * second; }
};
template <class T>
PYDLN_INLINE Power<T> exp(Of<T> x, Of<T> rest) {
  using F = Format<T>;
  using Word = typename F::Word;
  const Grown<T> g = grown<T>(at_least<T>(at_most<T>(x, F::kSteep), -F::kSteep), rest);
  const Word n = word_of<T>(g.whole) - word_of<T>(splat(F::kWhole));
  const Word half = ((n + 4096U) >> 1U) - 2048U;
  return {g.rest, power_of_two<T>(half), power_of_two<T>(n - half)};
}
// e^-(x^2 c), c a power of two: x^2 in two parts, for what rounds off a large square is many units of the result.
template <class T>
PYDLN_INLINE Power<T> exp_of_square(Of<T> x, T c) {
  const Of<T> upper = number_of<T>(word_of<T>(x) & Format<T>::kUpper);
  return exp<T>(-(c * upper * upper), -(c * (x - upper) * (x + upper)));
}

// tanh x = (1 - q) / (1 + q), 1 / cosh^2 x = 4 q / (1 + q)^2, q = e^(-2 |x|) = 2^n e^2h: of the first 1 - q is computed as such.
// n is 0 up to |x| = 0.22: beyond, what is rounded off h weighs less. N vectors side by side, for a step waits for the one
// before: four in 8.7 ns each, two in 9.5 (AVX-512, Zen 4).
template <class T, int N>
PYDLN_INLINE void tanh(const Of<T>* x, Of<T>* value, Of<T>* derivative) {
  using F = Format<T>;
  using Word = typename F::Word;
  constexpr T kShift = T(0.05), kPerHalfLn2 = T(2 * 1.442695040888963407360);
  constexpr T kHalfLn2 = F::kLn2 / 2, kHalfLn2Rest = F::kLn2Rest / 2;
  constexpr int kCount = sizeof(F::kDoubled) / sizeof(T), kEven = (kCount - 1) / 2 * 2, kOdd = kCount / 2 * 2 - 1;
  const auto each = [](auto step) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) step(i);
  };
  Of<T> y[N], n[N], h[N], square[N], even[N], odd[N], two_n[N], less[N], q[N], over[N], ratio[N];
  Word whole[N];
  each([&](int i) __attribute__((always_inline)) {
    y[i] = at_least<T>(number_of<T>(word_of<T>(x[i]) | F::kSign), -F::kFlat);
    n[i] = fma(Of<T>(y[i] + kShift), splat(kPerHalfLn2), splat(F::kWhole));
    whole[i] = word_of<T>(n[i]) << F::kMantissa;
  });
  each([&](int i) __attribute__((always_inline)) {
    n[i] = n[i] - F::kWhole;
    h[i] = fma(n[i], splat(-kHalfLn2Rest), fma(n[i], splat(-kHalfLn2), y[i]));
  });
  each([&](int i) __attribute__((always_inline)) {
    square[i] = h[i] * h[i];
    even[i] = splat(F::kDoubled[kEven]);
    odd[i] = splat(F::kDoubled[kOdd]);
  });
#pragma GCC unroll 8
  for (int k = 2; k <= kEven; k += 2)
    each([&](int i) __attribute__((always_inline)) {
      even[i] = fma(even[i], square[i], splat(F::kDoubled[kEven - k]));
      if (k <= kOdd) odd[i] = fma(odd[i], square[i], splat(F::kDoubled[kOdd - k]));
    });
  each([&](int i) __attribute__((always_inline)) {
    h[i] = fma(square[i], fma(odd[i], h[i], even[i]), h[i]);  // (e^2h - 1) / 2
    two_n[i] = number_of<T>(whole[i] + (static_cast<Word>(Word{} + F::kBias) << F::kMantissa));
    const Of<T> twice = number_of<T>(whole[i] + (static_cast<Word>(Word{} + F::kBias + 1) << F::kMantissa));
    less[i] = fma(twice, h[i], Of<T>(two_n[i] - 1));  // q - 1
    q[i] = fma(twice, h[i], two_n[i]);
  });
  each([&](int i) __attribute__((always_inline)) {
    over[i] = -1 / (1 + q[i]);
    ratio[i] = less[i] * over[i];
  });
  each([&](int i) __attribute__((always_inline)) {
    // Sums are exact; where n = 0 so is q - 1, but not q.
    const auto whole_less = whole[i] == 0;
    const Of<T> shared = whole_less ? ratio[i] + ratio[i] : ratio[i];
    const Of<T> excess = fma(ratio[i], whole_less ? less[i] : q[i], Of<T>(shared + less[i]));
    value[i] = with_sign_of<T>(fma(excess, over[i], ratio[i]), x[i]);
    const Of<T> two_over = over[i] + over[i];
    derivative[i] = y[i] == -F::kFlat ? Of<T>{} : two_over * two_over * q[i];
  });
}

// e^(y^2) erfc y for y = c x >= 0, with kNear / c = near + rest: u = near / (x + near) to its last digit.
template <class T>
PYDLN_INLINE Of<T> scaled_erfc(Of<T> x, T near, T rest) {
  using F = Format<T>;
  const Of<T> sum = x + near, off = (x - (sum - near)) + rest, rough = near / sum;
  const Of<T> missing = fma(-rough, sum, splat(near)) - (rough * off - rest);
  const Of<T> u = fma(missing, Of<T>(rough * (1 / near)), rough);
  return u * (1 / F::kNear) * polynomial(F::kTail, u);
}

template <class T>
PYDLN_INLINE void erf(Of<T> x, Of<T>& value, Of<T>& derivative) {
  const Of<T> a = at_most<T>(magnitude(x), Format<T>::kFar), e = exp_of_square<T>(a, 1).value();
  const Of<T> near = fma(a, polynomial(Format<T>::kErf, a * a), a),
              far = 1 - e * scaled_erfc<T>(a, Format<T>::kNear, 0);
  value = with_sign_of<T>(a < 1 ? near : far, x);
  derivative = T(1.12837916709551257390) * e;
}

// x Phi(x), Phi the distribution function of the normal distribution: by erf where that is about 1/2, else by erfc.
template <class T>
PYDLN_INLINE void gelu(Of<T> x, Of<T>& value, Of<T>& derivative) {
  using F = Format<T>;
  constexpr T kRoot = T(F::kNear * T(1.41421356237309504880));  // kNear sqrt(2), and what is missing
  constexpr T kRest = T(F::kRootMissing);
  const Of<T> a = at_most<T>(magnitude(x), F::kFar), line = x * T(0.353553390593273762200);
  const Power<T> e = exp_of_square<T>(a, T(0.5));
  const Of<T> tail = T(0.5) * scaled_erfc<T>(a, kRoot, kRest), outside = e.times(tail);
  const auto central = a < T(0.7);
  const Of<T> middle = T(0.5) + fma(line, polynomial(F::kErf, T(0.5) * a * a), line);
  const Of<T> phi = central ? middle : x < 0 ? outside : 1 - outside;
  value = x < T(-0.7) ? e.times(-(a * tail)) : x * phi;  // Phi itself may be where the numbers end
  derivative = fma(x, Of<T>(T(0.398942280401432677940) * e.value()), phi);
}

// ln(1 + e^x), ln(1 + q) = 2 artanh(q / (2 + q)); its derivative is the logistic function
template <class T>
PYDLN_INLINE void softplus(Of<T> x, Of<T>& value, Of<T>& derivative) {
  const Of<T> q = exp<T>(-magnitude(x), Of<T>{}).value(), s = q / (2 + q), z = s * s;
  const Of<T> above = x > 0 ? x : Of<T>{};
  value = above + 2 * fma(Of<T>(s * z), polynomial(Format<T>::kArtanh, z), s);
  derivative = (x < 0 ? q : splat(T(1))) / (1 + q);
}

}  // namespace elementary
}  // namespace pydln::PYDLN_ISA
