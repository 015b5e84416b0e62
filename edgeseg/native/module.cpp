// Python's view of the kernels. edgeseg.ops checks what users hand in; here only what could
// touch memory out of bounds is checked again.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <tuple>
#include <vector>

#include "dispatch.hpp"
#include "preprocess.hpp"

namespace nb = nanobind;

using Pixels = nb::ndarray<const std::uint8_t, nb::ndim<3>, nb::device::cpu>;
using Tensor = nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Table = nb::ndarray<const float, nb::shape<-1, 256>, nb::c_contig, nb::device::cpu>;
using Region = std::tuple<int, int, int, int>;

static void preprocess(const Pixels &pixels, const Tensor &out, const Table &table,
                       const Region &region, bool rgb, int threads) {
    const auto [top, left, height, width] = region;
    const edgeseg::Picture picture{pixels.data(), static_cast<std::ptrdiff_t>(pixels.stride(0)),
                                   static_cast<int>(pixels.shape(0)),
                                   static_cast<int>(pixels.shape(1)),
                                   static_cast<int>(pixels.shape(2))};
    const edgeseg::Target target{out.data(),
                                 static_cast<int>(out.shape(0)),
                                 static_cast<int>(out.shape(1)),
                                 static_cast<int>(out.shape(2)),
                                 top,
                                 left,
                                 height,
                                 width};
    // NumPy leaves the stride of an axis of length 1 undefined.
    const bool packed = (picture.channels == 1 || pixels.stride(2) == 1) &&
                        (picture.width == 1 || pixels.stride(1) == picture.channels);
    if (!packed || (picture.channels != 1 && picture.channels != 3 && picture.channels != 4))
        throw nb::value_error("pixels must be packed, with 1, 3 or 4 channels");
    if ((target.channels != 1 && target.channels != 3) || table.shape(0) != out.shape(0))
        throw nb::value_error("out must have 1 or 3 channels, table as many rows");
    if (picture.height < 1 || picture.width < 1 || top < 0 || left < 0 || height < 1 ||
        width < 1 || top > target.height - height || left > target.width - width)
        throw nb::value_error("the picture is empty or the region lies outside out");

    nb::gil_scoped_release release;
    edgeseg::preprocess(picture, target, table.data(), rgb, threads);
}

static std::vector<std::string> levels() {
    std::vector<std::string> names;
    for (const edgeseg::Rows *rows : edgeseg::levels()) names.emplace_back(rows->level);
    return names;
}

static void use(const std::string &level) {
    if (!edgeseg::use(level)) throw nb::value_error("not one of levels()");
}

NB_MODULE(_native, module) {
    module.doc() = "C++ twins of the kernels in edgeseg.ops.";
    module.attr("REVISION") = 2;  // as edgeseg/ops/native.py expects
    module.def("levels", &levels, "Levels of instructions that this CPU has, the best first.");
    module.def("level", [] { return edgeseg::rows().level; }, "The one in use.");
    module.def("use", &use, nb::arg("level"), "Choose another, for the whole process.");
    module.def("preprocess", &preprocess, nb::arg("pixels"), nb::arg("out").noconvert(),
               nb::arg("table").noconvert(), nb::arg("region"), nb::arg("rgb"), nb::arg("threads") = 1,
               "Fused resize, colour order, normalisation and (C, H, W) layout, without the GIL.");
}
