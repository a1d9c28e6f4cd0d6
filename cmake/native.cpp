// Asked by CMakeLists.txt: the best instruction set that this computer runs. The code is that of the dispatcher.
#include <cstdio>

#include "cpu/processor.cpp"

int main() { std::fputs(pydln::cpu::best_isa(), stdout); }
