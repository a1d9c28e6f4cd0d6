// What the processor and the operating system can do. CMake asks the same code which kernels a build for this computer needs.
#pragma once

namespace pydln::cpu {

// Whether this computer runs the kernels of that instruction set, compiled in or not.
bool runs_baseline();
bool runs_avx2();
bool runs_avx512();

// The name of the fastest of them here, compiled in or not.
const char* best_isa();

// Whether the processor multiplies and adds, loads and stores 64 bytes at once.
bool takes_64_bytes();

}  // namespace pydln::cpu
