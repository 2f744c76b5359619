// Which bytes of shared and of global memory the threads of an emulated kernel read and write, and whether something
// orders it. Two accesses to a byte, one of them a write, are ordered if one thread makes both or if both are of one
// block and a barrier lies in between; shuffles order nothing (the CUDA manual: they imply no memory barrier).
#pragma once

#include <stddef.h>

#include <string>

namespace emulation::memory {

inline unsigned thread = 0;  // whose accesses are seen, in its block
inline std::string fault;    // the first of a launch

void watch(bool on);  // on while the kernel runs, off while the emulator does
void report(const std::string& text);
void begin_launch(const void* stacks, size_t bytes);  // accesses to the stacks are not looked at
void begin_block(unsigned index);
void pass_barrier(const std::string& site);

}  // namespace emulation::memory
