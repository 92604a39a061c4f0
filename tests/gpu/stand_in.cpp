// A CUDA runtime for machines without a GPU. torch's build for CUDA trains under it; helpers/stand_in.py builds it.
//
// The memory of its GPUs is memory of the host. Copies, streams and events are real. Kernels and cuBLAS do nothing, so
// no number means anything: new memory is zero, and memory that torch uses again holds what was there before.
//
// The calls that make the host wait are counted: `stand_in_counts`. Variables of the environment:
//   STAND_IN_GPUS=N      how many GPUs there are; 1 by default
//   STAND_IN_LATE=all    asynchronous work is done when something waits for it, as late as a GPU may do it.
//   STAND_IN_LATE=main   only the work of the default stream is late
//   STAND_IN_ERROR="FUNCTION CODE"   this function of the runtime fails with this code
#include <driver_types.h> // the layout of the structs alone: the functions' arguments differ between versions of CUDA

#include <sys/mman.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

// Functions that succeed without doing anything, that write `value` to their first or second argument, that launch.
// Their other arguments do not matter, and differ between versions of CUDA.
#define NOTHING(name) \
    int name(...) { return 0; }
#define FIRST(name, type, value) \
    int name(type* out, ...) { return *out = (type)(value), 0; }
#define SECOND(name, type, value) \
    int name(void*, type* out, ...) { return *out = (type)(value), 0; }
#define LAUNCH(name) \
    int name(...) { return launched(); }

namespace {
using Lock = std::lock_guard<std::recursive_mutex>;
std::recursive_mutex mutex;

enum { LAUNCHES, WAITS, PAGEABLE, PINNED, COUNTERS };
long counts[COUNTERS]; // of the whole process: the backward pass runs in a thread of its own
void count(int which) { __sync_fetch_and_add(&counts[which], 1); }

bool starts_with(const char* text, const char* start) { return text && !strncmp(text, start, strlen(start)); }

int error_of(const char* function) {
    const char* wanted = getenv("STAND_IN_ERROR");
    return starts_with(wanted, (std::string(function) + " ").c_str()) ? atoi(wanted + strlen(function)) : 0;
}

thread_local int last_error = 0;
int launched() {
    count(LAUNCHES);
    return last_error = error_of("cudaLaunchKernel");
}

// ---------------------------------------------------------------- streams and events
struct Work {
    long number;
    std::function<void()> action;
};
struct Stream {
    long asked = 0, done = 0; // the numbers of the last work
    std::deque<Work> queue;
};
struct Event {
    Stream* stream = nullptr; // where it was recorded last
    long number = 0;          // done once this work of the stream is done
    int questions = 0;
    double milliseconds = 0;
};
std::map<void*, Stream> streams; // by handle; the default stream's is 0

void finish(Stream& stream, long number) {
    while (!stream.queue.empty() && stream.queue.front().number <= number) {
        Work work = stream.queue.front();
        stream.queue.pop_front();
        work.action();
        stream.done = work.number;
    }
}
void finish_all() {
    for (auto& [handle, stream] : streams) finish(stream, stream.asked);
}
void ask(void* handle, std::function<void()> action) {
    Stream& stream = streams[handle];
    stream.queue.push_back({++stream.asked, action});
    const char* late = getenv("STAND_IN_LATE");
    if (!starts_with(late, "all") && !(starts_with(late, "main") && !handle)) finish(stream, stream.asked);
}

// ---------------------------------------------------------------- memory
struct Block {
    size_t bytes;
    bool is_on_gpu; // else pinned
};
std::map<char*, Block> blocks;
size_t used = 0, most = size_t(80) << 30;

const Block* block_of(const void* place) { // null: pageable
    auto next = blocks.upper_bound((char*)place);
    if (next == blocks.begin()) return nullptr;
    auto& [start, block] = *--next;
    return (char*)place < start + block.bytes ? &block : nullptr;
}
int allocate(void** place, size_t bytes, bool is_on_gpu) {
    Lock lock(mutex);
    if (is_on_gpu && used + bytes > most) return 2;
    // From the system, as zeros. What nothing touches costs nothing, such as the workspace of cuBLAS.
    void* made = mmap(nullptr, bytes + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made == MAP_FAILED) return 2;
    blocks[(char*)made] = {bytes, is_on_gpu};
    used += is_on_gpu ? bytes : 0;
    *place = made;
    return 0;
}
int release(void* place) { // waits for all work, as CUDA does
    Lock lock(mutex);
    auto found = blocks.find((char*)place);
    if (found == blocks.end()) return 0;
    finish_all();
    used -= found->second.is_on_gpu ? found->second.bytes : 0;
    munmap(place, found->second.bytes + 1);
    blocks.erase(found);
    return 0;
}
} // namespace

extern "C" {
// ---------------------------------------------------------------- for the tests
void stand_in_counts(long* out) { memcpy(out, counts, sizeof counts); }
void stand_in_fill() { most = used; } // the memory is full from now on

// ---------------------------------------------------------------- memory
int cudaMalloc(void** place, size_t bytes) {
    int error = error_of("cudaMalloc");
    return error ? error : allocate(place, bytes, true);
}
int cudaMallocAsync(void** place, size_t bytes, void*) { return cudaMalloc(place, bytes); }
int cudaHostAlloc(void** place, size_t bytes, unsigned) { return allocate(place, bytes, false); }
int cudaMallocHost(void** place, size_t bytes) { return allocate(place, bytes, false); }
int cudaFree(void* place) { return release(place); }
int cudaFreeAsync(void* place, void*) { return release(place); }
int cudaFreeHost(void* place) { return release(place); }
int cudaHostRegister(void* place, size_t bytes, unsigned) {
    Lock lock(mutex);
    blocks[(char*)place] = {bytes, false};
    return 0;
}
int cudaHostUnregister(void* place) {
    Lock lock(mutex);
    blocks.erase((char*)place);
    return 0;
}
int cudaMemGetInfo(size_t* left, size_t* total) {
    *left = most - used;
    *total = size_t(80) << 30;
    return 0;
}
int cudaPointerGetAttributes(cudaPointerAttributes* out, const void* place) {
    Lock lock(mutex);
    const Block* block = block_of(place);
    memset(out, 0, sizeof *out);
    out->type = !block ? cudaMemoryTypeUnregistered : block->is_on_gpu ? cudaMemoryTypeDevice : cudaMemoryTypeHost;
    out->device = block && block->is_on_gpu ? 0 : -1;
    out->devicePointer = out->hostPointer = (void*)place;
    return 0;
}

// ---------------------------------------------------------------- copies
int cudaMemcpyAsync(void* to, const void* from, size_t bytes, int, void* stream) {
    if (!bytes) return 0;
    Lock lock(mutex);
    const Block *source = block_of(from), *target = block_of(to);
    bool between = (source && source->is_on_gpu) != (target && target->is_on_gpu);
    if (between) count(source && target ? PINNED : PAGEABLE);
    if (!source) { // CUDA has read pageable memory when the call returns
        auto read = std::make_shared<std::vector<char>>((const char*)from, (const char*)from + bytes);
        ask(stream, [=] { memcpy(to, read->data(), bytes); });
    } else {
        ask(stream, [=] { memmove(to, from, bytes); });
    }
    if (!target) finish(streams[stream], streams[stream].asked); // and has written it
    return 0;
}
int cudaMemcpy(void* to, const void* from, size_t bytes, int kind) {
    Lock lock(mutex);
    count(WAITS);
    cudaMemcpyAsync(to, from, bytes, kind, nullptr);
    finish(streams[nullptr], streams[nullptr].asked);
    return 0;
}
int cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t bytes, void* stream) {
    return cudaMemcpyAsync(to, from, bytes, 0, stream);
}
int cudaMemsetAsync(void* place, int value, size_t bytes, void* stream) {
    Lock lock(mutex);
    ask(stream, [=] { memset(place, value, bytes); });
    return 0;
}
int cudaMemset(void* place, int value, size_t bytes) { return cudaMemsetAsync(place, value, bytes, nullptr); }

// ---------------------------------------------------------------- streams and events
int cudaStreamCreateWithPriority(void** stream, unsigned, int) {
    Lock lock(mutex);
    *stream = malloc(1); // a handle that nothing else has
    streams[*stream];
    return 0;
}
int cudaStreamCreateWithFlags(void** stream, unsigned flags) { return cudaStreamCreateWithPriority(stream, flags, 0); }
int cudaStreamCreate(void** stream) { return cudaStreamCreateWithPriority(stream, 0, 0); }
int cudaStreamQuery(void* handle) {
    Lock lock(mutex);
    Stream& stream = streams[handle];
    if (stream.done == stream.asked) return 0;
    finish(stream, stream.asked); // a program may ask until it is done
    return cudaErrorNotReady;
}
int cudaStreamSynchronize(void* handle) {
    Lock lock(mutex);
    count(WAITS);
    finish(streams[handle], streams[handle].asked);
    return 0;
}
int cudaDeviceSynchronize() {
    Lock lock(mutex);
    count(WAITS);
    finish_all();
    return 0;
}
int cudaStreamWaitEvent(void* handle, void* given, unsigned) {
    Lock lock(mutex);
    Event event = *(Event*)given;
    if (event.stream) ask(handle, [=] { finish(*event.stream, event.number); });
    return 0;
}
int cudaEventCreateWithFlags(void** event, unsigned) {
    *event = new Event;
    return 0;
}
int cudaEventCreate(void** event) { return cudaEventCreateWithFlags(event, 0); }
int cudaEventDestroy(void* event) {
    delete (Event*)event;
    return 0;
}
int cudaEventRecordWithFlags(void* given, void* handle, unsigned) {
    Lock lock(mutex);
    ask(handle, [] {});
    Stream& stream = streams[handle];
    auto now = std::chrono::steady_clock::now().time_since_epoch();
    *(Event*)given = {&stream, stream.asked, 0, std::chrono::duration<double, std::milli>(now).count()};
    return 0;
}
int cudaEventRecord(void* event, void* stream) { return cudaEventRecordWithFlags(event, stream, 0); }
int cudaEventQuery(void* given) {
    Lock lock(mutex);
    Event& event = *(Event*)given;
    if (!event.stream || event.stream->done >= event.number) return 0;
    if (++event.questions > 3) finish(*event.stream, event.number);
    return cudaErrorNotReady;
}
int cudaEventSynchronize(void* given) {
    Lock lock(mutex);
    count(WAITS);
    Event& event = *(Event*)given;
    if (event.stream) finish(*event.stream, event.number);
    return 0;
}
int cudaEventElapsedTime(float* milliseconds, void* first, void* second) {
    *milliseconds = float(((Event*)second)->milliseconds - ((Event*)first)->milliseconds);
    return 0;
}
SECOND(cudaStreamGetPriority, int, 0)
SECOND(cudaStreamIsCapturing, int, 0)
SECOND(cudaStreamGetCaptureInfo, int, 0)
SECOND(cudaStreamGetCaptureInfo_v2, int, 0)
NOTHING(cudaStreamDestroy)
NOTHING(cudaThreadExchangeStreamCaptureMode)

// ---------------------------------------------------------------- the GPUs: H100s, by their numbers
int cudaGetDeviceCount(int* number) {
    const char *gpus = getenv("STAND_IN_GPUS"), *visible = getenv("CUDA_VISIBLE_DEVICES");
    int error = visible && !*visible ? int(cudaErrorNoDevice) : error_of("cudaGetDeviceCount");
    *number = error ? 0 : gpus ? atoi(gpus) : 1;
    return error;
}
thread_local int device = 0;
FIRST(cudaGetDevice, int, device)
int cudaSetDevice(int number) {
    device = number;
    return error_of("cudaSetDevice");
}
int cudaGetDeviceProperties(cudaDeviceProp* out, int number) {
    memset(out, 0, sizeof *out);
    out->uuid.bytes[0] = char(number);
    strcpy(out->name, "stand-in for an H100");
    out->totalGlobalMem = size_t(80) << 30;
    out->major = 9;
    out->warpSize = 32;
    out->multiProcessorCount = 132;
    out->regsPerBlock = out->regsPerMultiprocessor = 65536;
    out->sharedMemPerBlock = 49152;
    out->sharedMemPerBlockOptin = 232448;
    out->sharedMemPerMultiprocessor = 233472;
    out->maxThreadsPerBlock = out->maxThreadsDim[0] = out->maxThreadsDim[1] = 1024;
    out->maxThreadsDim[2] = 64;
    out->maxThreadsPerMultiProcessor = 2048;
    out->maxGridSize[0] = 2147483647;
    out->maxGridSize[1] = out->maxGridSize[2] = 65535;
    out->textureAlignment = 512;
    out->l2CacheSize = 50 << 20;
    return 0;
}
int cudaGetDeviceProperties_v2(cudaDeviceProp* out, int number) { return cudaGetDeviceProperties(out, number); }
int cudaDeviceGetAttribute(int* value, int which, int) {
    static const std::map<int, int> known = {
        {cudaDevAttrComputeCapabilityMajor, 9}, {cudaDevAttrComputeCapabilityMinor, 0},
        {cudaDevAttrMultiProcessorCount, 132},  {cudaDevAttrWarpSize, 32},
        {cudaDevAttrMaxThreadsPerBlock, 1024},  {cudaDevAttrMaxThreadsPerMultiProcessor, 2048},
        {cudaDevAttrMaxGridDimX, 2147483647},   {cudaDevAttrMaxGridDimY, 65535},
        {cudaDevAttrMaxGridDimZ, 65535},        {cudaDevAttrMaxSharedMemoryPerBlock, 49152},
        {cudaDevAttrTextureAlignment, 512},     {cudaDevAttrMaxSharedMemoryPerBlockOptin, 232448},
    };
    auto found = known.find(which);
    *value = found == known.end() ? 1 : found->second;
    return 0;
}
int cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
    if (least) *least = 0;
    if (greatest) *greatest = -5;
    return 0;
}
int cudaDeviceGetPCIBusId(char* out, int size, int number) {
    snprintf(out, size, "0000:%02d:00.0", number);
    return 0;
}
FIRST(cudaDeviceCanAccessPeer, int, 1)
FIRST(cudaRuntimeGetVersion, int, STAND_IN_VERSION)
FIRST(cudaDriverGetVersion, int, STAND_IN_VERSION)
SECOND(cudaGetDriverEntryPoint, void*, nullptr) // there is none
SECOND(cudaGetDriverEntryPointByVersion, void*, nullptr)
NOTHING(cudaDeviceEnablePeerAccess)
NOTHING(cudaProfilerStart)
NOTHING(cudaProfilerStop)

const char* cudaGetErrorString(int error) { // in CUDA's words, which torch repeats
    switch (error) {
        case 2: return "out of memory";
        case 35: return "CUDA driver version is insufficient for CUDA runtime version";
        case 46: return "CUDA-capable device(s) is/are busy or unavailable";
        case 100: return "no CUDA-capable device is detected";
        case 209: return "no kernel image is available for execution on the device";
        case 700: return "an illegal memory access was encountered";
    }
    return "unknown error";
}
const char* cudaGetErrorName(int) { return "error of the stand-in"; }
int cudaPeekAtLastError() { return last_error; }
int cudaGetLastError() {
    int error = last_error;
    last_error = 0;
    return error;
}

// ---------------------------------------------------------------- kernels: they are launched and do nothing
struct Launch {
    dim3 grid, block;
    size_t shared;
    void* stream;
};
thread_local Launch launch;
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void* stream) {
    launch = {grid, block, shared, stream};
    return 0;
}
int __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
    *grid = launch.grid;
    *block = launch.block;
    *shared = launch.shared;
    *(void**)stream = launch.stream;
    return 0;
}
void* __cudaRegisterFatBinary(void*) { return calloc(1, 64); }
int __cudaGetKernel(const void** kernel, const void* function) { return *kernel = function, 0; }
int cudaFuncGetAttributes(cudaFuncAttributes* out, const void*) {
    memset(out, 0, sizeof *out);
    out->ptxVersion = out->binaryVersion = 90;
    out->maxThreadsPerBlock = 1024;
    out->numRegs = 32;
    return 0;
}
FIRST(cudaOccupancyMaxActiveBlocksPerMultiprocessor, int, 2)
FIRST(cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags, int, 2)
FIRST(cudaGetSymbolAddress, void*, calloc(1, 1 << 20))
LAUNCH(__cudaLaunchKernel)
LAUNCH(cudaLaunchKernel)
LAUNCH(cudaLaunchKernelExC)
LAUNCH(cudaLaunchCooperativeKernel)
NOTHING(__cudaRegisterFatBinaryEnd)
NOTHING(__cudaUnregisterFatBinary)
NOTHING(__cudaRegisterFunction)
NOTHING(__cudaRegisterVar)
NOTHING(cudaFuncSetAttribute)
NOTHING(cudaKernelSetAttributeForDevice)
NOTHING(cudaMemcpyToSymbol)

// ---------------------------------------------------------------- cuBLAS: what torch calls for float, half and bfloat16
FIRST(cublasCreate_v2, void*, malloc(1))
FIRST(cublasLtCreate, void*, malloc(1))
FIRST(cublasLtMatmulDescCreate, void*, malloc(1))
FIRST(cublasLtMatmulPreferenceCreate, void*, malloc(1))
FIRST(cublasLtMatrixLayoutCreate, void*, malloc(1))
SECOND(cublasGetMathMode, int, 0)
SECOND(cublasGetPointerMode_v2, int, 0)
SECOND(cublasGetVersion_v2, int, 10 * STAND_IN_VERSION)
size_t cublasLtGetVersion() { return 10 * STAND_IN_VERSION; }
int cublasLtMatmulAlgoGetHeuristic(void*, void*, void*, void*, void*, void*, void*, int, void* result, int* found) {
    memset(result, 0, 64);
    *found = 1;
    return 0;
}
NOTHING(cublasDestroy_v2)
NOTHING(cublasSetStream_v2)
NOTHING(cublasSetWorkspace_v2)
NOTHING(cublasSetMathMode)
NOTHING(cublasSetPointerMode_v2)
NOTHING(cublasSetSmCountTarget)
NOTHING(cublasLtMatmulDescSetAttribute)
NOTHING(cublasLtMatmulDescDestroy)
NOTHING(cublasLtMatmulPreferenceSetAttribute)
NOTHING(cublasLtMatmulPreferenceDestroy)
NOTHING(cublasLtMatrixLayoutSetAttribute)
NOTHING(cublasLtMatrixLayoutDestroy)
NOTHING(cublasLtMatmulAlgoInit)
NOTHING(cublasLtMatmulAlgoCheck)
NOTHING(cublasLtMatmulAlgoConfigGetAttribute)
NOTHING(cublasLtMatmulAlgoConfigSetAttribute)
LAUNCH(cublasLtMatmul)
LAUNCH(cublasSgemm_v2)
LAUNCH(cublasSgemmEx)
LAUNCH(cublasSgemmStridedBatched)
LAUNCH(cublasSgemv_v2)
LAUNCH(cublasGemmEx)
LAUNCH(cublasGemmStridedBatchedEx)
LAUNCH(cublasDgemm_v2)
LAUNCH(cublasDgemmStridedBatched)
LAUNCH(cublasDgemv_v2)
LAUNCH(cublasDotEx)
LAUNCH(cublasSdot_v2)
LAUNCH(cublasDdot_v2)

// ---------------------------------------------------------------- the driver, as libcuda.so.1: torch asks it for contexts
FIRST(cuDriverGetVersion, int, STAND_IN_VERSION)
FIRST(cuCtxGetCurrent, void*, counts) // any address
SECOND(cuGetErrorString, const char*, "error of the stand-in")
int cuDeviceGet(int* handle, int number) { return *handle = number, 0; }
int cuDevicePrimaryCtxGetState(int, unsigned* flags, int* is_active) { return *flags = 0, *is_active = 1, 0; }
int cuGetProcAddress_v2(...) { return 500; } // there is no such function
NOTHING(cuInit)
NOTHING(cuCtxSetCurrent)
NOTHING(cuDevicePrimaryCtxRetain)
NOTHING(cuDeviceGetAttribute)
NOTHING(cuPointerGetAttribute)
}
