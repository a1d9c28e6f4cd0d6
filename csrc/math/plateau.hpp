// The plateau of a mode that starts small: while d u << s it is dz/dt = s P(z) (ops/modes.hpp), which is solved in closed
// form where all layers but the two smallest stand still, and where all are equal.
#pragma once

#include <cstdint>

namespace pydln {

struct Plateau {
  double end = 0;   // the time it lasts; 0: there is none that is worth it, or no closed form
  double last = 0;  // z at that time
  double start = 0, rate = 0, root = 0, power = 0;

  // z at the times up to `end`.
  //   dz/dt = rate sqrt(z² + root²):  arsinh(z / root) grows linearly; where root = 0, ln |z|
  //   d|z|/dt = rate |z|^(power + 1):  |z|^-power falls linearly
  double at(double t) const {
    if (power > 0) return start * __builtin_pow(1 - power * rate * t, -1 / power);
    if (root > 0) return root * __builtin_sinh(__builtin_asinh(start / root) + rate * t);
    return start * __builtin_exp(rate * t);
  }
};

// Of the mode with the smallest layer z, the sizes of the others, and the roots of their c_l, each `stride` apart.
// What is left out is below `tolerance`, relative to z.
static inline Plateau plateau(double z, double sign, double s, double d, const double* sizes, const double* roots,
                              std::int64_t others, std::int64_t stride, double tolerance) {
  Plateau p;
  p.start = z;
  const double y = z < 0 ? -z : z, goal = tolerance * (s < 0 ? -s : s) / d;  // of |u|
  double u = y, largest = 0;
  std::int64_t nearest = 0;
  for (std::int64_t l = 0; l < others; ++l) {
    u *= sizes[l * stride];
    if (roots[l * stride] < roots[nearest * stride]) nearest = l;
    if (roots[l * stride] > largest) largest = roots[l * stride];
  }
  if (others == 0 || s == 0 || y == 0 || !(u < 1e-3 * goal)) return p;
  double still = __builtin_huge_val(),
         lead = sign * s;  // the least root of the layers that must stand still; their product
  for (std::int64_t l = 0; l < others; ++l)
    if (l != nearest) {
      if (roots[l * stride] < still) still = roots[l * stride];
      lead *= sizes[l * stride];
    }
  const double edge = still * __builtin_sqrt(tolerance / static_cast<double>(others));
  if (y < 0.03 * edge) {
    // |u| = |lead / s| |z| sqrt(z² + root²) reaches its goal where z² = 2 q² / (root² + sqrt(root⁴ + 4 q²)).
    p.root = roots[nearest * stride];
    p.rate = lead;
    const double q = goal * (s < 0 ? -s : s) / (lead < 0 ? -lead : lead), square = p.root * p.root;
    double most = edge;  // unless |u| is there first, which it is not where q² is no number
    if (q < 1e150) most = q / __builtin_sqrt(0.5 * (square + __builtin_sqrt(square * square + 4 * q * q)));
    if (!(most < edge)) most = edge;
    if (!(most < __builtin_huge_val())) return Plateau{};
    if (p.root > 0) {
      p.last = lead < 0 ? -most : most;
      p.end = (__builtin_asinh(p.last / p.root) - __builtin_asinh(z / p.root)) / lead;
    } else {
      if (z < 0) p.rate = -lead;
      p.last = z < 0 ? -most : most;
      p.end = p.rate > 0 ? __builtin_log(most / y) / p.rate : __builtin_huge_val();
    }
  } else if (largest == 0 && others > 1) {
    p.power = static_cast<double>(others - 1);
    p.rate = (z < 0 ? -s : s) * sign * __builtin_pow(y, p.power);
    const double most = __builtin_pow(goal, 1 / static_cast<double>(others + 1));
    p.last = z < 0 ? -most : most;
    p.end = p.rate > 0 ? (1 - __builtin_pow(y / most, p.power)) / (p.power * p.rate) : __builtin_huge_val();
  }
  return p;
}

}  // namespace pydln
