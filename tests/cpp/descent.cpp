// Many steps against naive loops; stops, divergence, refilled lanes, threads; workspaces of exactly the measured size.
#include "cpu/descent.hpp"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>

#include "check.hpp"
#include "cpu/layout.hpp"
#include "math/cost.hpp"
#include "problem.hpp"

namespace {

using problem::Naive;
using problem::Options;
using problem::Problem;
using problem::Random;
using pydln::Layout;
using pydln::Status;

// Entries of size 1/2, rates of 1/16: errors grow by less than 2 per step, 24 steps of some hundred roundings each.
template <class T>
bool near(double a, double b) {
  return std::abs(a - b) <= 5e4 * static_cast<double>(std::numeric_limits<T>::epsilon()) * (1 + std::abs(b));
}

template <class T>
void many_steps(const std::vector<std::int64_t>& widths, std::int64_t batch, Options options) {
  Random random(5);
  const std::int64_t steps = 24;
  Problem<T> p(widths, batch, steps, {0, 3, 24}, options, [&] { return random.real(-0.4, 0.4); });
  for (T& lr : p.lr) lr = static_cast<T>(0.0625);
  for (T& momentum : p.momentum) momentum = std::abs(momentum);
  for (T& decay : p.decay) decay = std::abs(decay);
  problem::each_kernel([&](const pydln::cpu::Isa& isa, Layout layout) {
    p.rewind();
    problem::run(p, isa, layout);
    for (std::int64_t i = 0; i < batch; ++i) {
      Naive<T> naive(p, i);
      std::int64_t record = 0;
      for (std::int64_t step = 0; step <= steps; ++step) {
        if (p.op.record_at[record] == step) {
          CHECK(near<T>(static_cast<double>(p.op.loss[i * 3 + record]), naive.loss()));
          CHECK(near<T>(static_cast<double>(p.op.strengths[(i * 3 + record) * p.op.modes]), naive.strength(0)));
          ++record;
        }
        if (step < steps) naive.step();
      }
      for (std::size_t l = 0; l < naive.layers.size(); ++l)
        for (std::size_t q = 0; q < naive.layers[l].x.size(); ++q)
          CHECK(near<T>(static_cast<double>(p.weights[l][static_cast<std::size_t>(i) * naive.layers[l].x.size() + q]),
                        naive.layers[l].x[q]));
    }
    CHECK(p.guards_stand());
  });
}

// Scalar networks W = 1/2 learning 1 at rates of their own, so that each one's last step is known.
template <class T>
void stops() {
  const std::int64_t batch = 23, steps = 400;
  Problem<T> p({1, 1}, batch, steps, {0, 100, 400}, {}, [] { return 0.5; });
  std::vector<T> threshold(static_cast<std::size_t>(batch));
  for (std::int64_t i = 0; i < batch; ++i) {
    // W - 1/2 halves (target 1/2, start 0), misses by a factor 2 each step, or diverges.
    p.start[0][static_cast<std::size_t>(i)] = T(0);
    p.lr[static_cast<std::size_t>(i)] = i % 5 == 3 ? T(1e6) : T(0.5);
    threshold[static_cast<std::size_t>(i)] =
        i % 3 == 2 ? T(0) : static_cast<T>(0.5 + 0.125 * std::pow(0.25, static_cast<double>(i)));
  }
  p.op.stop_loss = {threshold.data(), 1};
  problem::each_kernel([&](const pydln::cpu::Isa& isa, Layout layout) {
    for (const int threads : {1, 3}) {
      p.rewind();
      problem::run(p, isa, layout, threads);
      for (std::int64_t i = 0; i < batch; ++i) {
        const auto m = static_cast<std::size_t>(i);
        if (i % 5 == 3)
          CHECK(p.status[m] == Status::diverged && p.stopped_at[m] < 100);
        else if (i % 3 == 2)
          CHECK(p.status[m] == Status::completed && p.stopped_at[m] == steps);
        else
          CHECK(p.status[m] == Status::reached_loss &&
                p.stopped_at[m] <= i);  // floor 1/2, which float32 rounds to sooner
        const bool recorded = !std::isnan(p.loss[m * 3 + 1]);
        CHECK(recorded == (p.stopped_at[m] >= 100));
        CHECK(!std::isnan(p.loss[m * 3]));
      }
      if constexpr (sizeof(T) == 8)
        for (std::int64_t i = 0; i < batch; ++i)
          if (i % 5 != 3 && i % 3 != 2) CHECK(p.stopped_at[static_cast<std::size_t>(i)] == i);
    }
  });
}

// The same bits from any number of threads, in both layouts, when there is enough work for threads to be started.
template <class T>
void threads() {
  Random random(9);
  const std::int64_t batch = 41;
  Problem<T> p({5, 9, 4, 3}, batch, 300, {0, 100, 300}, {.whitened = false, .task_per_member = true, .general = true},
               [&] { return random.real(0, 0.2); });
  CHECK(pydln::step_flops(p.op.chain, false) * 41 * 300 > 5e6);
  for (const pydln::cpu::Isa& isa : pydln::cpu::usable_isas()) {
    std::vector<std::vector<T>> first;
    for (const Layout layout : {Layout::interleaved, Layout::rows})
      for (const int threads : {1, 2, 7, 100}) {
        p.rewind();
        problem::run(p, isa, layout, threads);
        std::vector<std::vector<T>> now = p.weights;
        now.push_back(p.loss);
        now.push_back(p.drift);
        if (first.empty()) first = now;
        CHECK(now == first);
        CHECK(std::count(p.status.begin(), p.status.end(), Status::completed) == batch);
      }
  }
}

struct AlignedDelete {
  void operator()(char* p) const { ::operator delete[](p, std::align_val_t{64}); }
};

// A worker stays within the workspace it asked for (the address sanitizer watches the end of the block, the guards both).
template <class T>
void workspace(const std::vector<std::int64_t>& widths, Options options) {
  Random random(3);
  Problem<T> p(widths, 5, 3, {0, 2}, options, [&] { return random.real(0, 0.1); });
  problem::each_kernel([&](const pydln::cpu::Isa& isa, Layout layout) {
    const pydln::DescentBody<T> body = isa.body(p.op, layout);
    const std::size_t bytes = body.workspace(p.op);
    CHECK(bytes % 64 == 0);
    CHECK(layout == Layout::rows ? body.members == 1 : body.members > 1);
    for (const std::size_t margin : {std::size_t{0}, std::size_t{64}}) {
      const std::unique_ptr<char[], AlignedDelete> block(
          static_cast<char*>(::operator new[](bytes + 2 * margin, std::align_val_t{64})));
      std::memset(block.get(), 0x5a, bytes + 2 * margin);  // a workspace need not be clean
      p.rewind();
      pydln::Control control;  // NOLINT(misc-const-correctness): work, of a type that depends on T, counts in it
      body.work(p.op, control, block.get() + margin);
      for (std::size_t i = 0; i < margin; ++i) CHECK(block[i] == 0x5a && block[margin + bytes + i] == 0x5a);
      CHECK(control.next_member >= 5);
      CHECK(control.steps_done == 5 * 3);
    }
    // Measured to the byte: the last piece ends where the block does.
    CHECK(p.guards_stand());
  });
}

template <class F>
bool refuses(F f) {
  try {
    f();
  } catch (const std::invalid_argument&) {
    return true;
  }
  return false;
}

}  // namespace

int main() {
  for (unsigned bits = 0; bits < 8; ++bits) {
    const Options options = problem::options(bits);
    for (const auto& widths :
         std::vector<std::vector<std::int64_t>>{{3, 5, 2}, {2, 9, 7, 5}, {5, 7, 9, 2}, {6, 4}, {1, 1, 1}}) {
      many_steps<double>(widths, 7, options);
      many_steps<float>(widths, 11, options);
    }
    for (const auto& widths : std::vector<std::vector<std::int64_t>>{{1, 1}, {3, 5, 2}, {2, 5, 33, 3}, {17, 1, 130}}) {
      workspace<double>(widths, options);
      workspace<float>(widths, options);
      Options bare = options;
      bare.records = false;
      bare.test_task = true;
      workspace<double>(widths, bare);
    }
  }
  stops<double>();
  stops<float>();
  threads<double>();
  threads<float>();

  CHECK(!pydln::cpu::usable_isas().empty());
  CHECK(pydln::cpu::usable_isas().back().vectors<double>().bytes >=
        pydln::cpu::usable_isas().front().vectors<double>().bytes);  // best last
  for (const pydln::cpu::Isa& isa : pydln::cpu::usable_isas()) CHECK(&pydln::cpu::isa_named(isa.name) == &isa);
  CHECK(refuses([] { pydln::cpu::isa_named("abacus"); }));
  const std::vector<std::int64_t> narrow{2, 4, 3}, wide{100, 100, 100};
  CHECK(pydln::cpu::choose_layout("auto", {2, narrow.data()}, 1, {4, 32, false}) == Layout::interleaved);
  CHECK(pydln::cpu::choose_layout("auto", {2, wide.data()}, 1000, {4, 32, false}) == Layout::rows);
  CHECK(pydln::cpu::choose_layout("rows", {2, narrow.data()}, 1, {4, 32, false}) == Layout::rows);
  CHECK(pydln::cpu::choose_layout("interleaved", {2, wide.data()}, 1, {4, 32, false}) == Layout::interleaved);
  const std::vector<std::int64_t> middling{48, 48, 48};  // where vectors of 64 bytes change the choice
  CHECK(pydln::cpu::choose_layout("auto", {2, middling.data()}, 1000, {4, 32, false}) == Layout::rows);
  CHECK(pydln::cpu::choose_layout("auto", {2, middling.data()}, 1000, {16, 64, false}) == Layout::interleaved);
  CHECK(refuses([&] { pydln::cpu::choose_layout("columns", {2, wide.data()}, 1, {4, 32, false}); }));
  CHECK(pydln::cpu::choose_layout_on_samples("auto", {2, narrow.data()}, 8, {8, 64, false}) == Layout::interleaved);
  CHECK(pydln::cpu::choose_layout_on_samples("auto", {2, narrow.data()}, 8, {4, 32, false}) == Layout::interleaved);
  CHECK(pydln::cpu::choose_layout_on_samples("auto", {2, wide.data()}, 1000, {8, 64, false}) == Layout::rows);
  CHECK(pydln::cpu::choose_layout_on_samples("interleaved", {2, wide.data()}, 1, {8, 64, false}) ==
        Layout::interleaved);
  CHECK(refuses([&] { pydln::cpu::choose_layout_on_samples("columns", {2, wide.data()}, 1, {8, 64, false}); }));
  return check::result();
}
