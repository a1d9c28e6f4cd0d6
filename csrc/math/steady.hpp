// How fast a network may still become: what keeps `Stop.steady` from taking a plateau for the end.
#pragma once

#include <cstdint>

namespace pydln {

// Of layers that learn a mode of strength sigma from a small balanced start, da/dt = a^(D-1) (sigma - a^D): the largest speed on
// the way, where a^D = sigma (D-1) / (2D-1).
static inline double attainable_speed(double sigma, std::int64_t depth) {
  if (depth < 2 || !(sigma > 0)) return 0;
  const double D = static_cast<double>(depth);
  return sigma * D / (2 * D - 1) * __builtin_pow(sigma * (D - 1) / (2 * D - 1), (D - 1) / D);
}

// ||E|| without what the widths keep the network from learning, of squares that rounding blurs.
template <class T, class PerMember>
static inline double residual_to_learn(T square, const PerMember& least, std::int64_t member) {
  const double whole = static_cast<double>(square), kept = least ? static_cast<double>(*least.of(member)) : 0;
  const double left = whole - kept, blur = kept * (sizeof(T) == 8 ? 0x1p-46 : 0x1p-18);
  return left > blur ? __builtin_sqrt(left) : 0;
}

}  // namespace pydln
