// The kernel of decoupled modes for one instruction set; compiled like body.cpp, in double precision alone.
#include "cpu/kernels/modes.hpp"

#include "cpu/kernels/body.hpp"

namespace pydln::PYDLN_ISA {
namespace {

std::size_t measure(const ops::Modes& op) {
  Arena arena{nullptr};
  Control control;
  ModesWorker(op, control, arena);
  return arena.used;
}

void work(const ops::Modes& op, Control& control, char* workspace) {
  Arena arena{workspace, &control};
  ModesWorker(op, control, arena).run();
}

}  // namespace

ModesBody modes() { return {measure, work, ModesWorker::members}; }

}  // namespace pydln::PYDLN_ISA
