// A second device whose memory is host memory: what a GPU refuses, it refuses, and it computes what a CPU computes.
//
// Every operation goes through `computed`: its tensors are looked at as CPU tensors of the same memory, the CPU's kernel
// computes, and what is new is given memory of the device. It tells tensors of two devices and generators of the other
// device from its own, has a limit of memory, fills memory that is not written yet with garbage, and takes down what is
// read back to the host, and what the host waits for that is copied from it.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/op_registration/adaption.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <atomic>
#include <cstring>
#include <mutex>
#include <unordered_map>

namespace {

constexpr auto TYPE = c10::DeviceType::PrivateUse1;
const c10::Device HERE(TYPE, 0);

std::atomic<int64_t> used{0}, most{0}, limit{int64_t{1} << 40};
std::atomic<int> current{0};  // as set by whoever trains on another device than the first
std::atomic<bool> doubles{true};
std::mutex reading;
std::vector<std::string> reads, writes;

void take_down(std::vector<std::string>& where, const std::string& what) {
  std::lock_guard<std::mutex> lock(reading);
  where.push_back(what);
}

void read_back(const std::string& what) { take_down(reads, what); }

// ------------------------------------------------------------------------------------------------------------- memory

struct Memory final : c10::DeviceAllocator {
  static void freed(void* block) {
    auto* start = static_cast<int64_t*>(block) - 8;
    used -= *start;
    c10::GetCPUAllocator()->raw_deallocate(start);
  }

  c10::DataPtr allocate(size_t n) override {
    if (n == 0)
      return {nullptr, nullptr, &freed_nothing, HERE};
    TORCH_CHECK_WITH(OutOfMemoryError, used + int64_t(n) <= limit, "sim out of memory. Tried to allocate ", n, " bytes");
    auto* start = static_cast<int64_t*>(c10::GetCPUAllocator()->raw_allocate(n + 64));
    *start = n;
    used += n;
    most = std::max(most.load(), used.load());
    std::memset(start + 8, 0xFF, n);  // NaN, and −1
    return {start + 8, start + 8, &freed, HERE};
  }

  static void freed_nothing(void*) {}
  c10::DeleterFnPtr raw_deleter() const override { return &freed; }
  void copy_data(void* to, const void* from, std::size_t n) const override { default_copy_data(to, from, n); }
  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override {}
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex) override { return {}; }
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex) override {}
  std::pair<size_t, size_t> getMemoryInfo(c10::DeviceIndex) override { return {limit - used, limit}; }
};

Memory memory;
REGISTER_ALLOCATOR(TYPE, &memory);

// ----------------------------------------------------------------------------------------- the device, its generators

struct Guard final : c10::impl::NoOpDeviceGuardImpl<TYPE> {
  c10::Device exchangeDevice(c10::Device device) const override {
    return c10::Device(TYPE, c10::DeviceIndex(current.exchange(std::max(0, int(device.index())))));
  }
  c10::Device getDevice() const override { return c10::Device(TYPE, c10::DeviceIndex(current.load())); }
  void setDevice(c10::Device device) const override { exchangeDevice(device); }
  void uncheckedSetDevice(c10::Device device) const noexcept override { exchangeDevice(device); }
  c10::Stream getStream(c10::Device) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, HERE); }
  c10::Stream getNewStream(c10::Device, int) const override { return c10::Stream(c10::Stream::DEFAULT, HERE); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, HERE); }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeDevice(const c10::DeviceIndex) const override {}
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Random final : at::CPUGeneratorImpl {
  Random() {
    device_ = HERE;
    key_set_ = c10::DispatchKeySet(c10::DispatchKey::PrivateUse1);
  }
  // A GPU's generator gives other numbers than a CPU's of the same seed.
  void set_current_seed(uint64_t seed) override { at::CPUGeneratorImpl::set_current_seed(seed ^ 0x5DEECE66D); }
};

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(c10::DeviceIndex) const override {}
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return 0; }
  at::Generator getNewGenerator(c10::DeviceIndex) const override { return at::make_generator<Random>(); }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    static const at::Generator one = at::make_generator<Random>();
    return one;
  }
};

at::Generator ours() { return at::detail::getPrivateUse1Hooks().getDefaultGenerator(0); }

// --------------------------------------------------------------------------------------------------------- operations

// The tensors of one call as the CPU sees them.
struct Seen {
  std::unordered_map<c10::StorageImpl*, c10::Storage> storages;
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs;  // the device's, the CPU's

  at::Tensor host(const at::Tensor& device) {
    auto storage = device.storage();
    auto& same = storages[storage.unsafeGetStorageImpl()];
    if (!same)
      same = c10::Storage(c10::make_intrusive<c10::StorageImpl>(
          c10::StorageImpl::use_byte_size_t(), storage.nbytes(), c10::DataPtr(storage.mutable_data(), at::kCPU),
          c10::GetCPUAllocator(), /*resizable=*/true));
    auto tensor = at::detail::make_tensor<c10::TensorImpl>(
        c10::Storage(same), c10::DispatchKeySet(c10::DispatchKey::CPU), device.dtype());
    auto* impl = tensor.unsafeGetTensorImpl();
    impl->set_storage_offset(device.storage_offset());
    impl->set_sizes_and_strides(device.sizes(), device.strides());
    if (device.unsafeGetTensorImpl()->is_wrapped_number()) impl->set_wrapped_number(true);
    if (device.is_conj()) tensor._set_conj(true);
    if (device.is_neg()) tensor._set_neg(true);
    pairs.emplace_back(device, tensor);
    return tensor;
  }

  // Take over what an operation has resized.
  void settle() {
    for (auto& [device, cpu] : pairs) {
      auto now = cpu.storage();
      auto before = device.storage();
      if (now.data() != before.data()) {
        auto block = memory.allocate(now.nbytes());
        std::memcpy(block.get(), now.data(), now.nbytes());
        before.set_data_ptr(std::move(block));
        before.set_nbytes(now.nbytes());
      }
      auto* impl = device.unsafeGetTensorImpl();
      if (device.sizes() != cpu.sizes() || device.strides() != cpu.strides())
        impl->set_sizes_and_strides(cpu.sizes(), cpu.strides(), cpu.storage_offset());
    }
  }

  // What the CPU's kernel returned, as the device's: the argument itself, a view of it, or something new.
  at::Tensor device(const at::Tensor& found) {
    if (!found.defined()) return found;
    for (auto& [device, cpu] : pairs)
      if (cpu.unsafeGetTensorImpl() == found.unsafeGetTensorImpl()) return device;
    for (auto& [device, cpu] : pairs)
      if (cpu.storage().unsafeGetStorageImpl() == found.storage().unsafeGetStorageImpl())
        return placed(device.storage(), found);
    auto storage = c10::Storage(c10::make_intrusive<c10::StorageImpl>(
        c10::StorageImpl::use_byte_size_t(), found.storage().nbytes(), memory.allocate(found.storage().nbytes()), &memory,
        /*resizable=*/true));
    std::memcpy(storage.mutable_data(), found.storage().data(), found.storage().nbytes());
    return placed(storage, found);
  }

  static at::Tensor placed(const c10::Storage& storage, const at::Tensor& like) {
    auto tensor = at::detail::make_tensor<c10::TensorImpl>(
        c10::Storage(storage), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), like.dtype());
    auto* impl = tensor.unsafeGetTensorImpl();
    impl->set_storage_offset(like.storage_offset());
    impl->set_sizes_and_strides(like.sizes(), like.strides());
    if (like.unsafeGetTensorImpl()->is_wrapped_number()) impl->set_wrapped_number(true);
    if (like.is_conj()) tensor._set_conj(true);
    if (like.is_neg()) tensor._set_neg(true);
    return tensor;
  }
};

template <class Change>
c10::IValue each(const c10::IValue& value, const Change& change) {
  if (value.isTensor()) return change(value.toTensor());
  if (value.isTensorList()) {
    c10::List<at::Tensor> found;
    for (const at::Tensor& one : value.toTensorVector()) found.push_back(change(one));
    return found;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> found;
    for (std::optional<at::Tensor> one : value.toOptionalTensorVector())
      found.push_back(one ? std::optional<at::Tensor>(change(*one)) : one);
    return found;
  }
  return value;
}

// Whether the host has to wait for the device to know what comes out.
bool waits(const c10::OperatorHandle& op, const std::vector<c10::IValue>& given) {
  if (op.hasTag(at::Tag::data_dependent_output)) return true;
  if (!op.hasTag(at::Tag::dynamic_output_shape)) return false;
  bool indexed = false, masked = false;
  for (auto& value : given)
    if (value.isOptionalTensorList()) {
      indexed = true;
      for (std::optional<at::Tensor> one : value.toOptionalTensorVector())
        masked |= one && (one->scalar_type() == at::kBool || one->scalar_type() == at::kByte);
    }
  return !indexed || masked;
}

// Compute with the device's random numbers in place of the CPU's.
struct Drawing {
  at::Generator ours, theirs = at::detail::getDefaultCPUGenerator();
  at::Tensor before;
  explicit Drawing(at::Generator given) : ours(std::move(given)) {
    before = theirs.get_state();
    theirs.set_state(ours.get_state());
  }
  ~Drawing() {
    ours.set_state(theirs.get_state());
    theirs.set_state(before);
  }
};

std::unique_ptr<Drawing> drawing(const c10::OperatorHandle& op, std::vector<c10::IValue>& given) {
  if (!op.hasTag(at::Tag::nondeterministic_seeded)) return nullptr;
  auto generator = ours();
  for (auto& value : given)
    if (value.isGenerator()) {
      generator = value.toGenerator();
      TORCH_CHECK(
          generator.device().type() == TYPE, "Expected a 'sim' device type for generator but found '",
          generator.device().type(), "'");
      value = c10::IValue();
    }
  return std::make_unique<Drawing>(generator);
}

c10::OperatorHandle kernel_of(const c10::OperatorHandle& op, std::vector<c10::IValue>& given) {
  auto& dispatcher = c10::Dispatcher::singleton();
  if (op.schema().name() == "aten::convolution_overrideable") return dispatcher.findSchemaOrThrow("aten::convolution", "");
  if (op.schema().name() != "aten::convolution_backward_overrideable") return op;
  bool transposed = given[6].toBool();
  auto weight = given[2].toTensor();
  int64_t channels = transposed ? weight.size(1) * given[8].toInt() : weight.size(0);
  given.insert(given.begin() + 3, c10::IValue(std::vector<int64_t>{channels}));
  return dispatcher.findSchemaOrThrow("aten::convolution_backward", "");
}

void computed(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  auto given = torch::jit::pop(*stack, op.schema().arguments().size());
  const auto& name = op.schema().name();
  if (waits(op, given)) read_back(name);
  Seen seen;
  for (auto& value : given) {
    bool index = value.isOptionalTensorList();  // of `index` and its like: a GPU takes a CPU's as well
    value = each(value, [&](const at::Tensor& one) {
      if (!one.defined()) return one;
      bool here = one.device().type() == TYPE;
      TORCH_CHECK(
          here || index || one.dim() == 0,
          "Expected all tensors to be on the same device, but found at least two devices, sim:0 and cpu! (", name, ")");
      return here ? seen.host(one) : one;
    });
    if (value.isDevice() && value.toDevice().type() == TYPE) value = c10::Device(at::kCPU);
  }
  auto random = drawing(op, given);
  auto kernel = kernel_of(op, given);
  torch::jit::Stack results(given.begin(), given.end());
  kernel.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &results);
  seen.settle();
  for (auto& value : results)
    torch::jit::push(*stack, each(value, [&](const at::Tensor& one) { return seen.device(one); }));
}

void check_type(std::optional<at::ScalarType> type) {
  bool has_it = doubles || c10::scalarTypeToTypeMeta(c10::dtype_or_default(type)) != caffe2::TypeMeta::Make<double>();
  TORCH_CHECK_TYPE(has_it, "Cannot convert a sim Tensor to float64 dtype as the device doesn't support float64");
}

at::Tensor empty(
    c10::SymIntArrayRef size, std::optional<at::ScalarType> type, std::optional<at::Layout>, std::optional<at::Device>,
    std::optional<bool>, std::optional<at::MemoryFormat> format) {
  check_type(type);
  return at::detail::empty_generic(
      C10_AS_INTARRAYREF_SLOW(size), &memory, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
      c10::dtype_or_default(type), format);
}

at::Tensor empty_strided(
    c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<at::ScalarType> type, std::optional<at::Layout>,
    std::optional<at::Device>, std::optional<bool>) {
  check_type(type);
  return at::detail::empty_strided_generic(
      C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), &memory,
      c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), c10::dtype_or_default(type));
}

at::Tensor copied(const at::Tensor& self, const at::Tensor& target, bool non_blocking) {
  if (target.device().is_cpu()) read_back("copy to the host");
  if (self.device().is_cpu() && !non_blocking) take_down(writes, "copy from the host");
  Seen seen;
  auto cpu = [&](const at::Tensor& one) { return one.device().type() == TYPE ? seen.host(one) : one; };
  cpu(target).copy_(cpu(self));
  return target;
}

at::Tensor& set_storage(
    at::Tensor& self, at::Storage source, c10::SymInt offset, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(source);
  impl->set_sizes_and_strides(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), offset.expect_int());
  return self;
}

at::Tensor& set_whole_storage(at::Tensor& self, at::Storage source) {
  c10::SymInt size = int64_t(source.nbytes() / self.dtype().itemsize()), one = 1;
  return set_storage(self, source, 0, c10::SymIntArrayRef(size), c10::SymIntArrayRef(one));
}

}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&computed>()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copied);
  m.impl("convolution_overrideable", torch::CppFunction::makeFromBoxedFunction<&computed>());
  m.impl("convolution_backward_overrideable", torch::CppFunction::makeFromBoxedFunction<&computed>());
  m.impl("set_.source_Storage", &set_whole_storage);
  m.impl("set_.source_Storage_storage_offset", &set_storage);
}

TORCH_LIBRARY(simulated, m) {
  m.def("register() -> ()", [] { at::RegisterPrivateUse1HooksInterface(new Hooks()); });
  m.def("limit(int bytes) -> ()", [](int64_t bytes) { limit = bytes; });
  m.def("has_float64(bool it) -> ()", [](bool it) { doubles = it; });
  m.def("used() -> int", []() -> int64_t { return used; });
  m.def("most() -> int", []() -> int64_t { return most.exchange(used); });
  m.def("seed(int seed) -> ()", [](int64_t seed) { ours().set_current_seed(seed); });
  m.def("state() -> Tensor", [] { return ours().get_state(); });
  m.def("set_state(Tensor state) -> ()", [](const at::Tensor& state) { ours().set_state(state); });
  m.def("reads() -> str[]", [] {
    std::lock_guard<std::mutex> lock(reading);
    return std::exchange(reads, {});
  });
  m.def("writes() -> str[]", [] {
    std::lock_guard<std::mutex> lock(reading);
    return std::exchange(writes, {});
  });
}
