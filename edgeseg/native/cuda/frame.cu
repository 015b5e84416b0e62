// What a camera's frame goes through on the GPU before and after the network, to the same bits as
// edgeseg.ops on the CPU: all is integers and tables that the CPU made.
//
// nvcc compiles this file ahead for many GPUs, NVRTC at first use for the one at hand, and the
// tests as plain C++ that runs thread after thread. Hence no header, no library and no barrier;
// threads share nothing. A kernel takes one structure, which
// edgeseg/engines/cuda/kernels.py repeats; blockIdx.z counts the pictures of a batch.

using Byte = unsigned char;

struct Bgr {
    int blue, green, red;
};

// BGR frames of a batch: rows are `pitch` bytes apart, frames `next`.
struct FrameBatch {
    const Byte *data;
    long long pitch, next;
    int height, width;
};

__device__ inline Bgr pixel(const FrameBatch &frames, const Byte *data, int y, int x) {
    const Byte *bytes = data + y * frames.pitch + 3ll * x;
    return {bytes[0], bytes[1], bytes[2]};
}

// ---- frame -> tensor -----------------------------------------------------------------------

// A resized row is (row[first] * (256 - weight) + row[first + 1] * weight) / 256.
struct Tap {
    int first, weight;
};

struct Preprocess {
    FrameBatch frames;
    const Tap *down, *across;  // a tap for each row and each column of the region
    const float *table;        // (channels, 257): what a grey level becomes, and the border last
    float *out;                // (batch, channels, height, width)
    int channels, height, width;
    int top, left, rows, columns;  // the region that the picture fills
    int rgb;                       // else BGR; one channel is grey in any case
    int area;                      // the mean of what a pixel covers, else bilinear by the taps
};

// INTER_LINEAR_EXACT of OpenCV: exact sums, one rounding at the end.
__device__ inline Bgr resized(const FrameBatch &frames, const Byte *data, Tap down, Tap across) {
    const int below = down.first + (down.weight != 0), right = across.first + (across.weight != 0);
    const Bgr a = pixel(frames, data, down.first, across.first);
    const Bgr b = pixel(frames, data, down.first, right);
    const Bgr c = pixel(frames, data, below, across.first);
    const Bgr d = pixel(frames, data, below, right);
    const int v = across.weight, w = down.weight;
    const auto blend = [=](int a, int b, int c, int d) {
        return ((a * (256 - v) + b * v) * (256 - w) + (c * (256 - v) + d * v) * w + 32768) >> 16;
    };
    return {blend(a.blue, b.blue, c.blue, d.blue), blend(a.green, b.green, c.green, d.green),
            blend(a.red, b.red, c.red, d.red)};
}

// The pixels of an axis that pixel `place` of the target covers, in parts of which a pixel has
// `target`: the first and the last may count in part.
struct Cover {
    int first, last, head, tail;

    __device__ Cover(int source, int target, int place) {
        const long long begin = static_cast<long long>(place) * source, end = begin + source;
        first = static_cast<int>(begin / target);
        last = static_cast<int>((end - 1) / target);
        const long long next = static_cast<long long>(first + 1) * target;
        head = static_cast<int>((next < end ? next : end) - begin);
        tail = static_cast<int>(end - static_cast<long long>(last) * target);
    }

    __device__ int weight(int place, int target) const {
        return place == first ? head : place == last ? tail : target;
    }
};

// The mean of all that a pixel of the region covers: exact sums, halves rounded up.
__device__ inline Bgr averaged(const Preprocess &to, const Byte *data, int row, int column) {
    using Sum = unsigned long long;
    const FrameBatch &frames = to.frames;
    const Cover down(frames.height, to.rows, row), across(frames.width, to.columns, column);
    Sum blue = 0, green = 0, red = 0;
    for (int y = down.first; y <= down.last; ++y) {
        unsigned int line[3] = {0, 0, 0};
        for (int x = across.first; x <= across.last; ++x) {
            const Bgr bgr = pixel(frames, data, y, x);
            const unsigned int weight = across.weight(x, to.columns);
            line[0] += bgr.blue * weight;
            line[1] += bgr.green * weight;
            line[2] += bgr.red * weight;
        }
        const Sum weight = down.weight(y, to.rows);
        blue += line[0] * weight;
        green += line[1] * weight;
        red += line[2] * weight;
    }
    const Sum total = static_cast<Sum>(frames.height) * frames.width;
    const auto mean = [=](Sum sum) { return static_cast<int>((2 * sum + total) / (2 * total)); };
    return {mean(blue), mean(green), mean(red)};
}

// A thread a pixel of the tensor.
extern "C" __global__ void __launch_bounds__(256) preprocess(Preprocess to) {
    const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= to.width || y >= to.height) return;
    const int row = y - to.top, column = x - to.left;
    int first = 256, second = 256, third = 256;
    if (row >= 0 && row < to.rows && column >= 0 && column < to.columns) {
        const Byte *data = to.frames.data + blockIdx.z * to.frames.next;
        const Bgr bgr = to.area ? averaged(to, data, row, column)
                                : resized(to.frames, data, to.down[row], to.across[column]);
        const int grey = (bgr.blue * 3735 + bgr.green * 19235 + bgr.red * 9798 + 16384) >> 15;
        first = to.channels == 1 ? grey : to.rgb ? bgr.red : bgr.blue;
        second = bgr.green;
        third = to.rgb ? bgr.blue : bgr.red;
    }
    const long long plane = static_cast<long long>(to.height) * to.width;
    float *out = to.out + blockIdx.z * to.channels * plane +
                 static_cast<long long>(y) * to.width + x;
    out[0] = to.table[first];
    if (to.channels == 1) return;
    out[plane] = to.table[257 + second];
    out[2 * plane] = to.table[514 + third];
}

// ---- logits -> labels ----------------------------------------------------------------------

struct Argmax {
    const float *logits;  // (batch, channels, pixels)
    Byte *out;            // (batch, pixels)
    int channels, pixels;
};

// A thread a pixel: neighbours read neighbours, plane after plane. The first NaN wins, as in NumPy.
extern "C" __global__ void __launch_bounds__(256) argmax(Argmax of) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= of.pixels) return;
    const long long plane = of.pixels;
    const float *logits = of.logits + blockIdx.z * of.channels * plane + i;
    float best = logits[0];
    int label = 0;
#pragma unroll 4
    for (int c = 1; c < of.channels; ++c) {
        const float value = logits[c * plane];
        if (!(value > best || (value != value && best == best))) continue;
        best = value;
        label = c;
    }
    of.out[blockIdx.z * plane + i] = static_cast<Byte>(label);
}

// ---- labels -> colours on the frame ----------------------------------------------------------

// Labels where the picture lies in them: `data` is that region's first, rows are `pitch` apart.
struct Labels {
    const Byte *data;
    long long pitch, next;
    const int *rows, *columns;  // the one that each row and each column of the picture takes
};

struct Overlay {
    FrameBatch frames;
    Labels labels;
    const unsigned int *colours;  // of 256 labels: blue | green << 8 | red << 16 | alpha << 24
    Byte *out;                    // packed BGR; the picture itself is allowed
    int weight;                   // of the colours, 0…256; the picture has the rest
    int outline;                  // the rim of each region in its full colour
};

// Whether one of the eight neighbours has another label.
__device__ inline bool on_rim(const Overlay &on, const Byte *labels, int y, int x, int label) {
    bool differs = false;
    for (int v = y - 1; v <= y + 1; ++v) {
        if (v < 0 || v >= on.frames.height) continue;
        const Byte *row = labels + on.labels.rows[v] * on.labels.pitch;
        for (int u = x - 1; u <= x + 1; ++u)
            if (u >= 0 && u < on.frames.width) differs |= row[on.labels.columns[u]] != label;
    }
    return differs;
}

__device__ inline unsigned int laid_over(const Overlay &on, const Byte *labels, int y, int x,
                                         unsigned int bgr) {
    const int label = labels[on.labels.rows[y] * on.labels.pitch + on.labels.columns[x]];
    const unsigned int colour = on.colours[label], weight = on.weight;
    if (colour >> 24 == 0) return bgr;  // alpha is 255, or 0 of labels that stay clear
    if (on.outline && on_rim(on, labels, y, x, label)) return colour & 0xffffff;
    unsigned int blended = 0;
    for (int shift = 0; shift < 24; shift += 8) {
        const unsigned int under = bgr >> shift & 255, over = colour >> shift & 255;
        blended |= (under * (256 - weight) + over * weight + 128) >> 8 << shift;
    }
    return blended;
}

// A thread four pixels of a row, which are three words where they are aligned.
// Four blocks a multiprocessor: aiming at more, the compiler would spill registers.
extern "C" __global__ void __launch_bounds__(256, 4) overlay(Overlay on) {
    const FrameBatch &frames = on.frames;
    const int x = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
    const int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= frames.width || y >= frames.height) return;
    const Byte *data = frames.data + blockIdx.z * frames.next;
    const Byte *labels = on.labels.data + blockIdx.z * on.labels.next;
    const Byte *from = data + y * frames.pitch + 3ll * x;
    Byte *to = on.out + 3ll * ((static_cast<long long>(blockIdx.z) * frames.height + y) *
                                   frames.width + x);
    const auto places = reinterpret_cast<unsigned long long>(from) |
                        reinterpret_cast<unsigned long long>(to);
    if (x + 4 <= frames.width && places % 4 == 0) {
        const auto *words = reinterpret_cast<const unsigned int *>(from);
        const unsigned int a = words[0], b = words[1], c = words[2];
        const unsigned int p = laid_over(on, labels, y, x, a & 0xffffff);
        const unsigned int q = laid_over(on, labels, y, x + 1, a >> 24 | (b & 0xffff) << 8);
        const unsigned int r = laid_over(on, labels, y, x + 2, b >> 16 | (c & 0xff) << 16);
        const unsigned int s = laid_over(on, labels, y, x + 3, c >> 8);
        auto *out = reinterpret_cast<unsigned int *>(to);
        out[0] = p | q << 24;
        out[1] = q >> 8 | r << 16;
        out[2] = r >> 16 | s << 8;
        return;
    }
    for (int u = x; u < x + 4 && u < frames.width; ++u, from += 3, to += 3) {
        const unsigned int packed = from[0] | from[1] << 8 | from[2] << 16;
        const unsigned int result = laid_over(on, labels, y, u, packed);
        to[0] = static_cast<Byte>(result);
        to[1] = static_cast<Byte>(result >> 8);
        to[2] = static_cast<Byte>(result >> 16);
    }
}
