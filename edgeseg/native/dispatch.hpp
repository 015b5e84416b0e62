// Which row kernels this CPU runs.
#pragma once

#include <span>
#include <string_view>

#include "rows.hpp"

namespace edgeseg {

// The levels that this CPU has, the best first.
std::span<const Rows *const> levels();

// The row kernels in use: those of the best level, until `use` names another.
const Rows &rows();

// False, without effect, where this CPU lacks that level or nobody knows it.
bool use(std::string_view level);

}  // namespace edgeseg
