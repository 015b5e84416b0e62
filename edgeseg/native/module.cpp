// Python's view of the kernels. edgeseg.ops checks what users hand in; here only what could
// touch memory out of bounds is checked again.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "argmax.hpp"
#include "components.hpp"
#include "dispatch.hpp"
#include "overlay.hpp"
#include "preprocess.hpp"
#include "smooth.hpp"

namespace nb = nanobind;

using Pixels = nb::ndarray<const std::uint8_t, nb::ndim<3>, nb::device::cpu>;
template <class Value>  // (channels, height, width), of any strides
using Tensor = nb::ndarray<Value, nb::ndim<3>, nb::device::cpu>;
template <class Value>
using Table = nb::ndarray<const Value, nb::shape<-1, 256>, nb::c_contig, nb::device::cpu>;
using Lines = nb::ndarray<const float, nb::shape<-1, 4>, nb::c_contig, nb::device::cpu>;
using Frame = nb::ndarray<const std::uint8_t, nb::shape<-1, -1, 3>, nb::device::cpu>;
using Canvas = nb::ndarray<std::uint8_t, nb::shape<-1, -1, 3>, nb::c_contig, nb::device::cpu>;
using LabelMap = nb::ndarray<const std::uint8_t, nb::ndim<2>, nb::device::cpu>;
using Indices = nb::ndarray<const std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Colours = nb::ndarray<const std::uint8_t, nb::shape<256, 4>, nb::c_contig, nb::device::cpu>;
using Areas = nb::ndarray<std::int64_t, nb::shape<256>, nb::c_contig, nb::device::cpu>;
template <class Logit>
using Planes = nb::ndarray<const Logit, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Classes = nb::ndarray<std::uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Memory = nb::ndarray<std::uint8_t, nb::shape<2, -1, -1>, nb::c_contig, nb::device::cpu>;
using Blocks = nb::ndarray<const std::uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Components = nb::ndarray<nb::numpy, std::int64_t, nb::shape<-1, 8>>;
using Taken = std::tuple<Indices, Indices>;
using Look = std::tuple<Colours, int, bool>;
using Region = std::tuple<int, int, int, int>;

template <class Value>
static void preprocess(const Pixels &pixels, const Tensor<Value> &out, const Table<Value> &table,
                       const Region &region, bool rgb, int threads,
                       const std::optional<Lines> &lines, bool area) {
    const auto [top, left, height, width] = region;
    const edgeseg::Picture picture{pixels.data(), static_cast<std::ptrdiff_t>(pixels.stride(0)),
                                   static_cast<int>(pixels.shape(0)),
                                   static_cast<int>(pixels.shape(1)),
                                   static_cast<int>(pixels.shape(2))};
    // NumPy leaves the stride of an axis of length 1 undefined.
    const bool packed = (picture.channels == 1 || pixels.stride(2) == 1) &&
                        (picture.width == 1 || pixels.stride(1) == picture.channels);
    if (!packed || (picture.channels != 1 && picture.channels != 3 && picture.channels != 4))
        throw nb::value_error("pixels must be packed, with 1, 3 or 4 channels");
    const int channels = static_cast<int>(out.shape(0));
    if ((channels != 1 && channels != 3) || table.shape(0) != out.shape(0))
        throw nb::value_error("out must have 1 or 3 channels, table as many rows");
    if (lines && lines->shape(0) != out.shape(0))
        throw nb::value_error("lines must have a row a channel");
    if (picture.height < 1 || picture.width < 1 || top < 0 || left < 0 || height < 1 ||
        width < 1 || top > static_cast<int>(out.shape(1)) - height ||
        left > static_cast<int>(out.shape(2)) - width)
        throw nb::value_error("the picture is empty or the region lies outside out");

    const edgeseg::Target<Value> target{
        out.data() + top * out.stride(1) + left * out.stride(2),
        static_cast<std::ptrdiff_t>(out.stride(0)),
        static_cast<std::ptrdiff_t>(out.stride(1)),
        static_cast<std::ptrdiff_t>(out.stride(2)),
        channels, height, width};
    const edgeseg::Levels<Value> levels{
        table.data(), lines ? reinterpret_cast<const edgeseg::Line *>(lines->data()) : nullptr};
    static_assert(sizeof(edgeseg::Line) == 4 * sizeof(float));
    nb::gil_scoped_release release;
    edgeseg::preprocess(picture, target, levels, {rgb, area}, threads);
}

static bool ascend_within(const Indices &indices, std::size_t size) {
    const std::int32_t *first = indices.data(), *last = first + indices.shape(0);
    return std::is_sorted(first, last) &&
           (first == last || (*first >= 0 && static_cast<std::size_t>(last[-1]) < size));
}

static edgeseg::Labels labels_taken(const LabelMap &labels, const Taken &taken) {
    const auto &[rows, columns] = taken;
    if (labels.shape(1) != 1 && labels.stride(1) != 1)
        throw nb::value_error("labels must be packed along their rows");
    if (!ascend_within(rows, labels.shape(0)) || !ascend_within(columns, labels.shape(1)))
        throw nb::value_error("what is taken must ascend within labels");
    return {labels.data(), static_cast<std::ptrdiff_t>(labels.stride(0)),
            static_cast<int>(labels.shape(0)), static_cast<int>(labels.shape(1)), rows.data(),
            columns.data()};
}

static void overlay(const Frame &frame, const Canvas &out, const LabelMap &labels,
                    const Taken &taken, const Look &look, int threads) {
    const edgeseg::Labels source = labels_taken(labels, taken);
    const auto &[rows, columns] = taken;
    const auto &[colours, weight, outline] = look;
    if ((frame.shape(1) != 1 && frame.stride(1) != 3) || frame.stride(2) != 1)
        throw nb::value_error("frame must be packed along its rows");
    if (out.shape(0) != frame.shape(0) || out.shape(1) != frame.shape(1) ||
        rows.shape(0) != out.shape(0) || columns.shape(0) != out.shape(1))
        throw nb::value_error("frame, out and what is taken must have one size");
    if (weight < 0 || weight > 256) throw nb::value_error("weight must be within 0 and 256");

    const edgeseg::Canvas canvas{frame.data(), static_cast<std::ptrdiff_t>(frame.stride(0)),
                                 out.data(), static_cast<int>(out.shape(0)),
                                 static_cast<int>(out.shape(1))};
    nb::gil_scoped_release release;
    edgeseg::overlay(canvas, source, {colours.data(), weight, outline}, threads);
}

static void count_areas(const LabelMap &labels, const Taken &taken, const Areas &areas) {
    const edgeseg::Labels source = labels_taken(labels, taken);
    const auto &[rows, columns] = taken;
    nb::gil_scoped_release release;
    edgeseg::count_areas(source, static_cast<int>(rows.shape(0)),
                         static_cast<int>(columns.shape(0)), areas.data());
}

static int class_count(std::size_t channels) {
    if (channels < 1 || channels > 256) throw nb::value_error("logits must have 1 to 256 classes");
    return static_cast<int>(channels);
}

template <class Logit>
static void argmax(const Planes<Logit> &logits, const Classes &out, int threads) {
    const int channels = class_count(logits.shape(0));
    if (logits.shape(1) != out.shape(0) || logits.shape(2) != out.shape(1))
        throw nb::value_error("out must have the size of the logits");
    nb::gil_scoped_release release;
    edgeseg::argmax(logits.data(), channels, out.size(), out.data(), threads);
}

static Components components(const LabelMap &labels, int background) {
    if (labels.shape(1) != 1 && labels.stride(1) != 1)
        throw nb::value_error("labels must be packed along their rows");
    auto *found = new std::vector<edgeseg::Component>;
    const nb::capsule owner(found, [](void *vector) noexcept {
        delete static_cast<std::vector<edgeseg::Component> *>(vector);
    });
    {
        nb::gil_scoped_release release;
        *found = edgeseg::find_components(
            labels.data(), static_cast<std::ptrdiff_t>(labels.stride(0)),
            static_cast<int>(labels.shape(0)), static_cast<int>(labels.shape(1)), background);
    }
    static_assert(sizeof(edgeseg::Component) == 8 * sizeof(std::int64_t));
    return Components(found->data(), {found->size(), 8}, owner);
}

static void smooth(const LabelMap &labels, const Memory &memory, const Blocks &limits, int step) {
    if (labels.shape(1) != 1 && labels.stride(1) != 1)
        throw nb::value_error("labels must be packed along their rows");
    if (memory.shape(1) != labels.shape(0) || memory.shape(2) != labels.shape(1))
        throw nb::value_error("memory must have two planes of the size of labels");
    if (labels.size() && !limits.size()) throw nb::value_error("limits must have a block");
    if (step < 1 || step > 255) throw nb::value_error("step must be within 1 and 255");
    const edgeseg::LabelVotes map{labels.data(),
                                  static_cast<std::ptrdiff_t>(labels.stride(0)),
                                  static_cast<int>(labels.shape(0)),
                                  static_cast<int>(labels.shape(1)),
                                  memory.data(),
                                  memory.data() + labels.size()};
    const edgeseg::VoteLimits blocks{limits.data(), static_cast<int>(limits.shape(0)),
                                     static_cast<int>(limits.shape(1))};
    nb::gil_scoped_release release;
    edgeseg::smooth(map, blocks, step);
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
    module.attr("REVISION") = 6;  // as edgeseg/ops/native.py expects
    module.def("levels", &levels, "Levels of instructions that this CPU has, the best first.");
    module.def("level", [] { return edgeseg::rows().level; }, "The one in use.");
    module.def("use", &use, nb::arg("level"), "Choose another, for the whole process.");
    const auto def_preprocess = [&](const char *name, auto *function) {
        module.def(name, function, nb::arg("pixels"), nb::arg("out").noconvert(),
                   nb::arg("table").noconvert(), nb::arg("region"), nb::arg("rgb"),
                   nb::arg("threads") = 1, nb::arg("lines").none() = nb::none(),
                   nb::arg("area") = false,
                   "Fused resize, colour order and normalisation into (C, H, W), without the GIL.");
    };
    def_preprocess("preprocess_float", &preprocess<float>);
    def_preprocess("preprocess_half", &preprocess<std::uint16_t>);
    def_preprocess("preprocess_levels", &preprocess<std::uint8_t>);
    module.def("overlay", &overlay, nb::arg("frame"), nb::arg("out").noconvert(),
               nb::arg("labels"), nb::arg("taken"), nb::arg("look"),
               nb::arg("threads") = 1,
               "Nearest label, its colour, blend and rims in one pass, without the GIL.");
    module.def("count_areas", &count_areas, nb::arg("labels"), nb::arg("taken"),
               nb::arg("areas").noconvert(), "Pixels of each label, without the GIL.");
    module.def("components", &components, nb::arg("labels"), nb::arg("background"),
               "Label, area, left, top, right, bottom and coordinate sums of each 8-connected "
               "region but of the label `background`, without the GIL.");
    const char *first = "Class of the largest logit, the first of equals, without the GIL.";
    module.def("argmax_float", &argmax<float>, nb::arg("logits").noconvert(),
               nb::arg("out").noconvert(), nb::arg("threads") = 1, first);
    module.def("argmax_half", &argmax<std::int16_t>, nb::arg("logits").noconvert(),
               nb::arg("out").noconvert(), nb::arg("threads") = 1, first);
    module.def("argmax_int8", &argmax<std::int8_t>, nb::arg("logits").noconvert(),
               nb::arg("out").noconvert(), nb::arg("threads") = 1, first);
    module.def("smooth", &smooth, nb::arg("labels"), nb::arg("memory").noconvert(),
               nb::arg("limits"), nb::arg("step"),
               "Votes of earlier frames on each pixel's label, without the GIL.");
}
