// Runs every row kernel on fixed numbers and prints a checksum each: two builds of rows.cpp that
// print the same compute the same. Arrays are as long as the kernels may touch and no longer.

#include <cstdio>
#include <cstring>
#include <vector>

#include "../../edgeseg/native/rows.hpp"

#define EDGESEG_JOIN(level) edgeseg::level::rows
#define EDGESEG_ROWS(level) EDGESEG_JOIN(level)

static unsigned state = 1;
static unsigned next() { return state = state * 1664525u + 1013904223u, state >> 8; }

template <class T>
static std::vector<T> noise(std::size_t count) {
    std::vector<T> result(count);
    for (T &value : result) value = static_cast<T>(static_cast<int>(next() & 0xffff) - 0x8000);
    return result;
}

template <class T>
static void print(const char *name, std::size_t count, const std::vector<T> &values) {
    unsigned long long sum = 1469598103934665603ull;  // FNV-1a
    const auto *bytes = reinterpret_cast<const unsigned char *>(values.data());
    for (std::size_t i = 0; i < values.size() * sizeof(T); ++i) sum = (sum ^ bytes[i]) * 1099511628211ull;
    std::printf("%s %zu %016llx\n", name, count, sum);
}

int main() {
    const edgeseg::Rows &rows = EDGESEG_ROWS(EDGESEG_LEVEL);
    for (std::size_t n : {1, 2, 3, 7, 8, 15, 16, 31, 33, 64, 127, 129, 300, 1280, 2000}) {
        const int count = static_cast<int>(n), channels = 5;
        const auto above = noise<std::uint8_t>(n), below = noise<std::uint8_t>(n),
                   frame = noise<std::uint8_t>(n);
        std::vector<std::int16_t> row(n + edgeseg::kRowSlack);
        rows.blend_rows(above.data(), below.data(), 77, row.data(), n);
        print("blend_rows", n, row);
        std::vector<edgeseg::Tap> taps(n);
        for (auto &tap : taps) {
            const unsigned weight = next() % 256;
            tap = {static_cast<int>(next() % n), weight << 16 | (256 - weight)};
        }
        std::vector<std::uint32_t> pixels(4 * n);
        rows.blend_columns(row.data(), taps.data(), 3, count, pixels.data());
        print("blend_columns", n, pixels);
        rows.to_grey(pixels.data(), count);
        print("to_grey", n, pixels);

        const std::size_t half = (n + 1) / 2;
        std::vector<std::uint16_t> keep[2], shade[2];
        for (int odd : {0, 1}) {
            keep[odd] = noise<std::uint16_t>(half), shade[odd] = noise<std::uint16_t>(half);
            for (auto &value : keep[odd]) value %= 257;
            for (std::size_t i = 0; i < half; ++i) shade[odd][i] %= 1 + 255 * (256 - keep[odd][i]);
        }
        std::vector<std::uint8_t> out(n);
        const edgeseg::Veil veil{{keep[0].data(), keep[1].data()}, {shade[0].data(), shade[1].data()}};
        rows.lay_over(frame.data(), veil, n, out.data());
        print("lay_over", n, out);
        auto labels = noise<std::uint8_t>(3 * n);
        for (auto &label : labels) label = label % 16 == 0;
        rows.find_rim(&labels[0], &labels[n], &labels[2 * n], count, out.data());
        print("find_rim", n, out);

        const auto floats = noise<float>(channels * n), lower = noise<float>(channels * n);
        const auto halves = noise<std::int16_t>(channels * n);
        const auto bytes = noise<std::int8_t>(channels * n);
        const auto plane = static_cast<std::ptrdiff_t>(n);
        rows.argmax_float(floats.data(), plane, channels, n, out.data());
        print("argmax_float", n, out);
        rows.argmax_half(halves.data(), plane, channels, n, out.data());
        print("argmax_half", n, out);
        rows.argmax_int8(bytes.data(), plane, channels, n, out.data());
        print("argmax_int8", n, out);
        rows.argmax_blended(floats.data(), lower.data(), 0.3f, plane, channels, n, out.data());
        print("argmax_blended", n, out);
    }
}
