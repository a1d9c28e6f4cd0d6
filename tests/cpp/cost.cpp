// The order of propagation and its cost, against counting every multiply-add of both orders.
#include "math/cost.hpp"

#include <vector>

#include "check.hpp"

namespace {

using pydln::Chain;

struct Counted {
  std::int64_t products = 0;  // carried products and gradients of D - 1 layers
  std::int64_t residual = 0;  // the last product of the chain, and the product with Sigma_xx
};

// Multiply-adds of an (m × k) (k × n) product, counted one by one.
std::int64_t count(std::int64_t m, std::int64_t k, std::int64_t n) {
  std::int64_t sum = 0;
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j)
      for (std::int64_t q = 0; q < k; ++q) ++sum;
  return sum;
}

// A_D = I, A_l = A_{l+1} W_{l+1} down to Omega = A_0; R_1 = E, R_{l+1} = R_l W_l^T; gradients A_l^T R_l, and for the last
// layer, where A_D = I, R_D itself.
Counted along_outputs(const std::vector<std::int64_t>& n, bool whitened) {
  Counted c;
  const std::size_t D = n.size() - 1;
  const std::int64_t m = n[D];
  for (std::size_t l = D - 1; l >= 1; --l) (l == 1 ? c.residual : c.products) += count(m, n[l], n[l - 1]);
  if (!whitened) c.residual += count(m, n[0], n[0]);
  for (std::size_t l = 1; l < D; ++l) {
    c.products += count(m, n[l - 1], n[l]);
    c.products += count(n[l], m, n[l - 1]);
  }
  return c;
}

std::vector<std::int64_t> reversed(const std::vector<std::int64_t>& n) { return {n.rbegin(), n.rend()}; }

void all_chains(std::vector<std::int64_t>& widths, std::size_t length, const std::vector<std::int64_t>& sizes) {
  if (widths.size() < length) {
    for (const std::int64_t n : sizes) {
      widths.push_back(n);
      all_chains(widths, length, sizes);
      widths.pop_back();
    }
    return;
  }
  const Chain chain{static_cast<std::int64_t>(length) - 1, widths.data()};
  const auto outputs = along_outputs(widths, true), inputs = along_outputs(reversed(widths), true);
  const auto total = [](const Counted& c) { return c.products + c.residual; };
  // The counts of cost.hpp are those of the carried products, the first of which ends in Omega.
  CHECK(pydln::output_side_work(chain) == static_cast<double>(total(outputs)));
  CHECK(pydln::input_side_work(chain) == static_cast<double>(total(inputs)));
  CHECK(pydln::carry_input_side(chain) == (total(inputs) < total(outputs)));
}

}  // namespace

int main() {
  for (std::size_t length = 2; length <= 5; ++length) {
    std::vector<std::int64_t> widths;
    all_chains(widths, length, {1, 2, 3, 5, 7});
  }
  // MNIST: the output side costs 1/78 of the input side.
  const std::vector<std::int64_t> mnist{784, 1000, 1000, 10};
  const Chain chain{3, mnist.data()};
  CHECK(!pydln::carry_input_side(chain));
  CHECK(pydln::input_side_work(chain) / pydln::output_side_work(chain) > 40);
  const std::vector<std::int64_t> turned = reversed(mnist);
  CHECK(pydln::carry_input_side({3, turned.data()}));
  // A step in flops is twice the cheaper order and its residual.
  const double n = 784 * 10;
  CHECK(pydln::step_flops(chain, true) == 2 * (pydln::output_side_work(chain) + n));
  CHECK(pydln::step_flops(chain, false) == 2 * (pydln::output_side_work(chain) + n + n * 784));
  const std::vector<std::int64_t> one{4, 3};
  CHECK(pydln::step_flops({1, one.data()}, true) == 2 * 12);
  return check::result();
}
