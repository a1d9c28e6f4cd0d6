// Stochastic gradients: every kernel draws the same samples, whatever its vectors and its layout, and a member its own
// whatever the batch. What is drawn is checked in Python, against the specification, on the sets this computer has.
#include <algorithm>

#include "check.hpp"
#include "problem.hpp"

namespace {

using problem::Options;
using problem::Problem;
using problem::Random;
using pydln::ops::NoiseKind;

template <class T>
struct Data {
  std::vector<T> x, y, root, labels, std;
  std::vector<std::int64_t> number;
};

template <class T>
void give_noise(Problem<T>& p, Data<T>& data, NoiseKind kind, std::int64_t size, bool replace, bool coloured) {
  const std::int64_t D = p.op.chain.depth, in = p.op.chain.widths[0], out = p.op.chain.widths[D], samples = size + 9;
  Random random(5);
  const auto fill = [&](std::vector<T>& v, std::int64_t count, double most) {
    v.resize(static_cast<std::size_t>(count));
    for (T& value : v) value = static_cast<T>(random.real(-most, most));
    return pydln::PerMember<const T>{v.data(), 0};
  };
  pydln::ops::Noise<T>& n = p.op.noise;
  n = {};
  n.kind = kind;
  n.seed = 0x123456789ABCDEFULL;
  n.size = size;
  n.samples = samples;
  n.replace = replace;
  n.scale = T(1) / static_cast<T>(size);
  n.x = fill(data.x, samples * in, 1);
  n.y = fill(data.y, samples * out, 1);
  n.labels = fill(data.labels, out * in, 1);
  if (coloured) {
    n.root = fill(data.root, in * in, 0.3);
    for (std::int64_t a = 0; a < in; ++a)
      for (std::int64_t b = 0; b < a; ++b)
        data.root[static_cast<std::size_t>(a * in + b)] = data.root[static_cast<std::size_t>(b * in + a)];
  }
  n.std = fill(data.std, p.op.batch, 1);
  n.std.stride = 1;
  for (T& value : data.std) value = std::max(value, T(0));
  data.number.resize(static_cast<std::size_t>(p.op.batch));
  for (std::int64_t i = 0; i < p.op.batch; ++i) data.number[static_cast<std::size_t>(i)] = 3 + i;
  n.number = {data.number.data(), 1};
}

template <class T>
void compare(const std::vector<std::int64_t>& widths, std::int64_t batch, Options options, NoiseKind kind,
             std::int64_t size, bool replace, bool coloured) {
  Random random(7);
  Problem<T> p(widths, batch, 9, {0, 4, 9}, options, [&] { return random.real(-0.3, 0.3); });
  for (T& rate : p.lr) rate = T(0.005);
  Data<T> data;
  give_noise(p, data, kind, size, replace, coloured);
  std::vector<std::vector<T>> first;
  problem::each_kernel([&](const pydln::cpu::Isa& isa, pydln::Layout layout) {
    p.rewind();
    problem::run(p, isa, layout, 2);
    CHECK(p.guards_stand());
    if (first.empty()) first = p.weights;
    bool close = true, moved = false;
    for (std::size_t l = 0; l < first.size(); ++l)
      for (std::size_t q = 0; q < p.start[l].size(); ++q) {
        const double error = std::abs(static_cast<double>(p.weights[l][q]) - static_cast<double>(first[l][q]));
        close &= error <= (sizeof(T) == 8 ? 1e-12 : 2e-4);
        moved |= p.weights[l][q] != p.start[l][q];
      }
    CHECK(moved);
    if (!CHECK(close))
      std::printf("  %s, layout %d, kind %d, %zu layers from %d, size %d\n", isa.name.c_str(), static_cast<int>(layout),
                  static_cast<int>(kind), widths.size() - 1, static_cast<int>(widths[0]), static_cast<int>(size));
  });
}

}  // namespace

int main() {
  const std::vector<std::vector<std::int64_t>> shapes = {{3, 2},    {5, 7, 2},     {2, 6, 5},
                                                         {4, 4, 4}, {9, 3, 4, 13}, {18, 20, 19}};
  for (const auto& widths : shapes)
    for (const unsigned bits : {0U, 1U, 2U, 5U})
      for (const bool coloured : {false, true})
        for (const std::int64_t size : {1, 3, 5, 131}) {
          if (size > 100 && bits != 1) continue;  // comes in pieces
          const Options options = problem::options(bits);
          for (const std::int64_t batch : {1, 19}) {
            compare<double>(widths, batch, options, NoiseKind::minibatch, size, !coloured, false);
            compare<double>(widths, batch, options, NoiseKind::online, size, true, coloured);
            compare<float>(widths, batch, options, NoiseKind::online, size, true, coloured);
            if (size == 1) compare<double>(widths, batch, options, NoiseKind::labels, size, true, coloured);
          }
        }
  return check::result();
}
