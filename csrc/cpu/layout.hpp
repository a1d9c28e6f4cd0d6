// Which layout runs a network, by tables of measured rates.
#pragma once

#include <string>

#include "cpu/isa.hpp"

namespace pydln::cpu {

// Share of the processor's peak that each layout is expected to reach for a batch, unfilled lanes counted as lost.
struct Rates {
  double interleaved, rows;
};
Rates expected_rates(const Chain& chain, std::int64_t batch, Vectors vectors);

// The layout of that name, "interleaved" or "rows", or for "auto" the one of the higher expected rate. Throws std::invalid_argument on any other name.
Layout choose_layout(const std::string& name, const Chain& chain, std::int64_t batch, Vectors vectors);

// The same of networks whose products have samples for rows (ops::Nonlinear).
Layout choose_layout_on_samples(const std::string& name, const Chain& chain, std::int64_t batch, Vectors vectors);

}  // namespace pydln::cpu
