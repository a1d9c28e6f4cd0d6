// A run that is cancelled: members in work are handed over where they are, those not begun keep what was there.
#include <cmath>

#include "check.hpp"
#include "problem.hpp"

namespace {

using problem::ample_memory;
using problem::Naive;
using problem::Problem;
using problem::Random;
using pydln::Layout;
using pydln::Status;

constexpr std::int64_t kEndless = 1'000'000'000'000;

bool same(const Problem<double>& p, std::int64_t member) {
  bool equal = true;
  for (std::size_t l = 0; l < p.start.size(); ++l) {
    const std::size_t size = p.start[l].size() / static_cast<std::size_t>(p.op.batch);
    for (std::size_t q = 0; q < size; ++q) {
      const std::size_t at = static_cast<std::size_t>(member) * size + q;
      equal &= p.weights[l][at] == p.start[l][at];
    }
  }
  return equal;
}

void cancelled_before_it_began() {
  Random random(1);
  Problem<double> p({3, 4, 2}, 29, kEndless, {0, 7}, {}, [&] { return random.real(0, 0.5); });
  problem::each_kernel([&](const pydln::cpu::Isa& isa, Layout layout) {
    for (const int threads : {1, 3}) {
      p.rewind();
      pydln::Control control;
      pydln::cancel(control);
      pydln::cpu::run<double>(p.op, isa, layout, threads, ample_memory, control, [] {});
      const std::int64_t group = layout == Layout::rows ? 1 : isa.kernels<double>().descent(layout, false).members;
      std::int64_t taken = 0;
      for (std::int64_t i = 0; i < 29; ++i) {
        const auto m = static_cast<std::size_t>(i);
        CHECK(p.status[m] == Status::interrupted);
        CHECK(p.stopped_at[m] == 0 || p.stopped_at[m] == -7);  // -7: never begun
        CHECK(same(p, i));
        CHECK(std::isnan(p.loss[2 * m]) && std::isnan(p.loss[2 * m + 1]));
        taken += p.stopped_at[m] == 0;
      }
      CHECK(taken >= 1 && taken <= group * threads);
    }
  });
}

void cancelled_by_its_poll() {
  Random random(2);
  const std::int64_t batch = 29;
  Problem<double> p({3, 4, 2}, batch, kEndless, {0, 7, kEndless}, {}, [&] { return random.real(0.1, 0.5); });
  for (double& lr : p.lr) lr = 0.0625;
  std::vector<double> threshold(static_cast<std::size_t>(batch), -1e9);
  for (std::int64_t i = 0; i < batch; i += 4) threshold[static_cast<std::size_t>(i)] = 1e9;  // over at once
  p.op.stop_loss = {threshold.data(), 1};
  problem::each_kernel([&](const pydln::cpu::Isa& isa, Layout layout) {
    p.rewind();
    pydln::Control control;
    int polls = 0;
    pydln::cpu::run<double>(p.op, isa, layout, 2, ample_memory, control, [&] {
      if (++polls == 2) pydln::cancel(control);
    });
    CHECK(polls >= 2);
    const std::int64_t group = layout == Layout::rows ? 1 : isa.kernels<double>().descent(layout, false).members;
    std::int64_t in_work = 0, waiting = 0;
    for (std::int64_t i = 0; i < batch; ++i) {
      const auto m = static_cast<std::size_t>(i);
      if (p.stopped_at[m] == -7) {
        ++waiting;
        CHECK(p.status[m] == Status::interrupted && same(p, i) && std::isnan(p.loss[3 * m]));
      } else if (i % 4 == 0) {
        CHECK(p.status[m] == Status::reached_loss && p.stopped_at[m] == 0 && same(p, i));
      } else {
        ++in_work;
        CHECK(p.status[m] == Status::interrupted && p.stopped_at[m] > 7 && !same(p, i));
        Naive<double> naive(p, i);
        CHECK(std::abs(p.loss[3 * m] - naive.loss()) < 1e-12);
        for (int step = 0; step < 7; ++step) naive.step();
        CHECK(std::abs(p.loss[3 * m + 1] - naive.loss()) < 1e-12);
        CHECK(std::isnan(p.loss[3 * m + 2]));
      }
    }
    CHECK(in_work == 2 * group);
    CHECK(waiting >= 1);
    CHECK(p.guards_stand());
  });
}

}  // namespace

int main() {
  cancelled_before_it_began();
  cancelled_by_its_poll();
  return check::result();
}
