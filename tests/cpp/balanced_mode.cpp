// The kernels that look modes up, on a table that needs no more than std::exp to be checked: v = e^T / 2 before T = 0,
// 1 - v = e^-T / 2 after it. Real tables are checked in Python, on the sets this computer has.
#include "cpu/balanced_mode.hpp"

#include <cmath>
#include <cstring>
#include <new>
#include <vector>

#include "check.hpp"

namespace {

namespace ops = pydln::ops;

constexpr double kGuard = -777;

// y = 1 + |T| from 1 to 2^kOctaves on either side.
struct Table {
  static constexpr std::int64_t kOctaves = 9, kPerOctave = 1U << ops::kCellBits, kCells = kOctaves * kPerOctave;
  struct alignas(64) Row {
    double of[ops::kRow];
  };
  std::vector<Row> rows = std::vector<Row>(2 * kCells);
  std::vector<double> bounds = std::vector<double>(kCells + 1);

  Table() {
    for (std::int64_t i = 0; i <= kCells; ++i) {
      const double octave = std::ldexp(1.0, static_cast<int>(i / kPerOctave)), part = 1.0 / kPerOctave;
      const double y = octave * (1 + static_cast<double>(i % kPerOctave) * part);
      bounds[static_cast<std::size_t>(i)] = 0.5 * std::exp(1 - y);
      if (i == kCells) break;
      const double centre = y + 0.5 * octave * part;
      for (const std::int64_t side : {std::int64_t{0}, kCells})
        rows[static_cast<std::size_t>(side + i)] = {{0.5 * std::exp(1 - centre), -octave}};
    }
  }
  void fill(ops::BalancedMode& op) const {
    op.table = rows[0].of;
    op.rows = 2 * kCells;
    constexpr std::int64_t kFirst = 1023 * kPerOctave;
    op.early = {0, kCells, kFirst, 1, -1, bounds.data()};
    op.late = {kCells, kCells, kFirst, 1, 1, bounds.data()};
    op.middle = 0.5;
    op.late_is_gap = true;
    op.last = 500;
  }
};

double time_of(double v) { return v < 0.5 ? std::log(2 * v) : -std::log(2 * (1 - v)); }

struct Problem {
  std::vector<double> u0, s, rate, t, u, gap;
  std::vector<std::int64_t> which;
  ops::BalancedMode op;

  Problem(const Table& table, std::int64_t modes, std::int64_t times, bool own_times, bool chosen) {
    for (std::int64_t i = 0; i < modes; ++i) {
      const double x = static_cast<double>((i * 7919) % 1009) / 1009;
      s.push_back(i % 2 ? -2 + x : 0.5 + x);
      u0.push_back(s.back() * (i % 3 == 2 ? 0.6 + 0.3 * x : std::exp(-20 * x) * 0.9));
      rate.push_back(1 + x);
      if (i == 0 || i % 3 != 0) which.push_back(modes - 1 - i);
    }
    for (std::int64_t i = 0; i < (own_times ? modes : 1) * times; ++i)
      t.push_back(static_cast<double>((i * 6007) % 997) / 30);
    table.fill(op);
    op.modes = static_cast<std::int64_t>(chosen ? which.size() : u0.size());
    op.times = times;
    op.which = chosen ? which.data() : nullptr;
    op.u0 = u0.data(), op.s = s.data(), op.rate = rate.data(), op.t = t.data();
    op.t_stride = own_times ? times : 0;
  }
  void run(const pydln::cpu::Isa& isa, int threads) {
    u.assign(u0.size() * static_cast<std::size_t>(op.times) + 16, kGuard);
    gap = u;
    op.u = u.data() + 8, op.gap = gap.data() + 8;
    pydln::Control control;
    pydln::cpu::run(op, isa, threads, control, [] {});
  }
  // Every number that was asked for, and nothing else.
  bool right() const {
    bool good = true;
    std::vector<bool> asked(u0.size(), !op.which);
    for (const std::int64_t i : which)
      if (op.which) asked[static_cast<std::size_t>(i)] = true;
    for (std::size_t i = 0; i < u.size(); ++i) {
      const std::size_t number = i - 8, times = static_cast<std::size_t>(op.times), mode = number / times;
      if (i < 8 || mode >= u0.size() || !asked[mode]) {
        good &= u[i] == kGuard && gap[i] == kGuard;
        continue;
      }
      const double time = t[(op.t_stride ? number : number % times)];
      const double T = time_of(u0[mode] / s[mode]) + rate[mode] * time;
      const double less = 0.5 * std::exp(-std::fabs(T));
      const double v = T < 0 ? less : 1 - less, rest = T < 0 ? 1 - less : less;
      good &= std::fabs(u[i] / (s[mode] * v) - 1) < 1e-14 * (1 + std::fabs(T));
      good &= std::fabs(gap[i] / (s[mode] * rest) - 1) < 1e-14 * (2 + rate[mode] * time);
    }
    return good;
  }
};

}  // namespace

int main() {
  const Table table;
  for (const pydln::cpu::Isa& isa : pydln::cpu::usable_isas()) {
    for (const std::int64_t modes : {1, 2, 3, 7, 8, 9, 17, 700})
      for (const std::int64_t times : {1, 2, 5, 8, 11, 64, 600})
        for (const bool own_times : {false, true})
          for (const bool chosen : {false, true}) {
            Problem p(table, modes, times, own_times, chosen);
            p.run(isa, 1);
            CHECK(p.right());
          }
    Problem p(table, 700, 600, false, false);
    p.run(isa, 1);
    const std::vector<double> alone = p.u, alone_gap = p.gap;
    p.run(isa, 3);
    CHECK(p.u == alone && p.gap == alone_gap);
    p.op.gap = nullptr;
    p.u.assign(p.u.size(), kGuard);
    pydln::Control control;
    pydln::cpu::run(p.op, isa, 1, control, [] {});
    CHECK(p.u == alone);
    // A run that is cancelled before it begins writes nothing.
    p.run(isa, 1);
    p.u.assign(p.u.size(), kGuard);
    pydln::Control stopped;
    pydln::cancel(stopped);
    pydln::cpu::run(p.op, isa, 2, stopped, [] {});
    CHECK(p.u == std::vector<double>(p.u.size(), kGuard));
  }
  return check::result();
}
