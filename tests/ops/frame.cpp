// Runs the kernels themselves on fixed numbers and prints a checksum each, with the row kernels of
// one level: two builds that print the same compute the same.

#include <cstdio>
#include <numeric>
#include <type_traits>
#include <vector>

#include "../../edgeseg/native/argmax.hpp"
#include "../../edgeseg/native/components.hpp"
#include "../../edgeseg/native/dispatch.hpp"
#include "../../edgeseg/native/overlay.hpp"
#include "../../edgeseg/native/preprocess.hpp"
#include "../../edgeseg/native/smooth.hpp"

namespace edgeseg {
const Rows &rows() { return EDGESEG_LEVEL::rows; }  // in place of dispatch.cpp
}  // namespace edgeseg

static unsigned state = 1;
static unsigned next() { return state = state * 1664525u + 1013904223u, state >> 8; }

template <class T>
static std::vector<T> noise(std::size_t count) {
    std::vector<T> result(count);
    for (T &value : result) value = static_cast<T>(static_cast<int>(next() & 0xffff) - 0x8000);
    return result;
}

template <class T>
static void print(const char *name, const std::vector<T> &values) {
    unsigned long long sum = 1469598103934665603ull;  // FNV-1a
    const auto *bytes = reinterpret_cast<const unsigned char *>(values.data());
    for (std::size_t i = 0; i < values.size() * sizeof(T); ++i) sum = (sum ^ bytes[i]) * 1099511628211ull;
    std::printf("%s %016llx\n", name, sum);
}

// Planes, or pixels one after another.
template <class T>
static void preprocess(const edgeseg::Picture &picture, int channels, int height, int width,
                       bool planes) {
    std::vector<T> out(static_cast<std::size_t>(channels) * height * width);
    const auto table = noise<T>(256 * static_cast<std::size_t>(channels));
    const std::vector<edgeseg::Line> lines(channels, {1.25f / 64, -2.5f, 3e-8f, -1e-7f});
    const edgeseg::Target<T> target{out.data(), planes ? height * width : 1,
                                    planes ? width : width * channels, planes ? 1 : channels,
                                    channels, height, width};
    edgeseg::preprocess(picture, target, {table.data(), nullptr}, {true, false}, 2);
    print("preprocess", out);
    edgeseg::preprocess(picture, target, {table.data(), nullptr}, {true, true}, 2);
    print("preprocess by area", out);
    if (!std::is_same_v<T, float>) return;
    edgeseg::preprocess(picture, target, {table.data(), lines.data()}, {true, false}, 2);
    print("preprocess with lines", out);
}

static std::vector<std::int32_t> nearest(int source, int target) {
    std::vector<std::int32_t> result(target);
    for (int i = 0; i < target; ++i) result[i] = (2 * i + 1) * source / (2 * target);
    return result;
}

static void one_frame(int height, int width, int small_height, int small_width) {
    const auto pixels = static_cast<std::size_t>(height) * width;
    const auto small = static_cast<std::size_t>(small_height) * small_width;
    for (int channels : {1, 3, 4}) {
        const auto bytes = noise<std::uint8_t>(pixels * channels);
        const edgeseg::Picture upside_down{&bytes[(height - 1) * width * channels],
                                           -width * channels, height, width, channels};
        for (bool planes : {false, true}) {
            preprocess<float>(upside_down, 3, small_height, small_width, planes);
            preprocess<std::uint16_t>(upside_down, 1, small_height, small_width, planes);
            preprocess<std::uint8_t>(upside_down, 3, small_height, small_width, planes);
        }
    }

    const int classes = 6;
    auto logits = noise<float>(small * classes);
    std::vector<std::uint8_t> labels(small);
    edgeseg::argmax(logits.data(), classes, small, labels.data(), 2);
    print("argmax", labels);
    logits[small / 2] = __builtin_nanf("");
    edgeseg::argmax(logits.data(), classes, small, labels.data(), 2);
    print("argmax of a NaN", labels);

    const auto rows = nearest(small_height, height), columns = nearest(small_width, width);
    for (auto &label : labels) label = label % 3 * (next() % 4 != 0);
    const edgeseg::Labels map{labels.data(), small_width, small_height, small_width, rows.data(),
                              columns.data()};
    auto colours = noise<std::uint8_t>(256 * 4);
    for (std::size_t alpha = 3; alpha < colours.size(); alpha += 4)
        colours[alpha] = alpha == 3 ? 0 : 255;  // class 0 stays clear
    const auto frame = noise<std::uint8_t>(pixels * 3);
    std::vector<std::uint8_t> painted(pixels * 3);
    for (int weight : {100, 128}) {
        edgeseg::overlay({frame.data(), width * 3, painted.data(), height, width}, map,
                         {colours.data(), weight, true}, 2);
        print("overlay", painted);
    }
    std::vector<std::int64_t> areas(256);
    edgeseg::count_areas(map, height, width, areas.data());
    print("count_areas", areas);
    for (int background : {-1, 0})
        print("components", edgeseg::find_components(labels.data(), small_width, small_height,
                                                     small_width, background));

    const auto limits = noise<std::uint8_t>(15);
    auto memory = noise<std::uint8_t>(2 * small);
    edgeseg::smooth({labels.data(), small_width, small_height, small_width, memory.data(),
                     memory.data() + small},
                    {limits.data(), 3, 5}, 80);
    print("smooth", memory);
}

int main() {
    one_frame(90, 161, 32, 48);
    one_frame(11, 7, 37, 29);
    one_frame(1, 1, 8, 8);
}
