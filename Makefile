# Builds train_gpt: the binary ./train_gpt, its tests, its bench programs and a
# relocatable package. One file, no recursion into folders.
#
#   scripts/install_deps.sh && make        then: make help
#
# Sources are discovered, never listed. A feature (MPI, NCCL, CUDA) is built in
# when both its sources and its tools are there; everything else builds without.
# Objects go to build/<flavour>/obj, with a dependency file beside each; three
# stamp files there (flags, sources, version) make a change of options, a deleted
# file or a new commit rebuild exactly what it touches.

MAKEFLAGS += --no-builtin-rules --no-builtin-variables
ifeq ($(filter -j%,$(MAKEFLAGS)),)
    MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 1)
endif
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

define HELP
make [TARGET] [VARIABLE=value ...]

targets
  all       build ./train_gpt (the default)
  train     build, make the demo text, train a small model on it for about two minutes, print a sample
  chat      build, teach the demo's model to answer questions, print answers before and after; about two minutes
  finetune  the same with low-rank adapters alone; exports them for PEFT, and merges them
  test      build and run all tests; the last line is "N passed, N failed"
  test-long the tests that take too long for every change (tests/long), among them all cases of those of which test
            takes some; the same last line
  build/release/gpu_tests    build the tests of the CUDA kernels for a card (make test runs the kernels on the CPU)
  kernels-report             compile the kernels for Hopper and check the machine code; needs nvcc, but no card
  chaos     accidents: kills, power cuts, full disks, refused memory, ranks that hang or lie; HOURS=1, SEED=n
  fuzz      give every parser damaged files, under sanitizers, for MINUTES=10
  lint      check the rules of the source tree and its formatting
  format    reformat the sources with clang-format
  bench     run dev/bench/*.sh, or one of them: BENCH=name
  dist      package for other x86-64 machines, with a bill of materials: build/dist/train_gpt-VERSION-x86_64.tar.gz;
            the same commit and toolchain make the same bytes, in any folder
  info      print what the build found and how it will compile
  clean     remove build/ and ./train_gpt

variables
  DEBUG=1   -O1 -g and the library's assertions, in build/debug/
  SAN=1     the same with address and undefined-behaviour sanitizers, in build/san/
  TSAN=1    the same with the thread sanitizer, in build/tsan/; OpenMP has one thread there (dev/notes/sanitizers.md)
  ARCH=x    target processor, as for g++ -march (default native)
  BLAS=x    onednn or openblas (default: oneDNN where installed, else OpenBLAS's OpenMP build)
  MPI=0 CUDA=0 SENTENCEPIECE=0    leave the feature out although it was found
  CUDA_HOME=dir   where the CUDA toolkit is (default: from nvcc on PATH, else /usr/local/cuda)
  GPU_ARCH="x y"  compute capabilities to compile kernels for (default: that of the card present, else "80 89 90"; the
            package has all since Ampere that the toolkit knows)
  ARGS="x"  further options for ./train_gpt in make train
  WERROR=0  do not turn warnings into errors
  UNITY=n   compile n neighbouring files as one: half the time from nothing, more after a change
  V=1       show the commands
  CXX CPPFLAGS CXXFLAGS LDFLAGS LDLIBS    as usual; flags are appended to the project's own

tests also read, from the environment: GTEST_FILTER, E2E_FILTER, TEST_TIMEOUT (see tests/run.sh)
endef

# ---- flavour ------------------------------------------------------------------

DEBUG ?= 0
SAN   ?= 0
TSAN  ?= 0
DIST  ?= 0
V     ?= 0
BLAS  ?= auto
# Not in the package: MPI's libraries must be those of the machine's own mpirun. Ranks find each other without it, too.
MPI   ?= $(if $(filter 1,$(DIST)),0,1)
CUDA  ?= 1
SENTENCEPIECE ?= 1
WERROR        ?= 1

machine := $(shell uname -m)

ifeq ($(DIST),1)
    flavour := dist
    ARCH ?= $(if $(filter x86_64,$(machine)),x86-64-v3,native)
    BUILD := build/dist$(if $(WIDE),-$(WIDE))
else
    ifeq ($(SAN)$(TSAN),11)
        $(error SAN=1 and TSAN=1 exclude each other: no program can have both)
    endif
    flavour := $(if $(filter 1,$(SAN)),san,$(if $(filter 1,$(TSAN)),tsan,$(if $(filter 1,$(DEBUG)),debug,release)))
    ARCH ?= native
    BUILD := build/$(flavour)$(if $(filter-out native,$(ARCH)),-$(ARCH))
endif

obj   := $(BUILD)/obj
quiet := $(if $(filter 1,$(V)),,@)
comma := ,
say    = @$(if $(filter 1,$(V)),:,printf '  %-4s %s\n' '$1' '$2')

# ---- what is there --------------------------------------------------------------

ifneq ($(filter default undefined,$(origin CXX)),)
    CXX := g++
endif
compiler_version := $(shell $(CXX) -dumpfullversion -dumpversion 2>/dev/null)
multiarch        := $(shell $(CXX) -print-multiarch 2>/dev/null)

nvcc := $(firstword $(if $(CUDA_HOME),$(wildcard $(CUDA_HOME)/bin/nvcc)) \
            $(shell command -v nvcc 2>/dev/null) $(wildcard /usr/local/cuda/bin/nvcc))
CUDA_HOME    ?= $(patsubst %/bin/nvcc,%,$(nvcc))
cuda_include := $(patsubst %/cuda_runtime.h,%,$(firstword $(wildcard $(addsuffix \
                    /cuda_runtime.h,$(if $(CUDA_HOME),$(CUDA_HOME)/include) /usr/local/cuda/include))))

# A distribution's toolkit has its headers where the compiler looks anyway, and must not have the folder named again.
cuda_isystem := $(addprefix -isystem ,$(filter-out /usr/include,$(cuda_include)))

# Kernels are compiled for the cards that are here; a machine without one gets the usual three, a package all kinds of
# card since Ampere; of these what the toolkit knows. PTX of the last is there for what is newer.
toolkit_knows := $(if $(nvcc),$(patsubst compute_%,%,$(filter compute_%,$(shell $(nvcc) --list-gpu-arch 2>/dev/null))))
known     = $(if $(toolkit_knows),$(filter $(toolkit_knows),$1),$1)
cards    := $(if $(filter 1,$(DIST)),,$(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | \
                sed -n 's/^\([0-9]*\)[.]\([0-9]\)$$/\1\2/p' | sort -un))
GPU_ARCH ?= $(or $(call known,$(cards)),$(call known,$(if $(filter 1,$(DIST)),80 86 89 90 100 120,80 89 90)))

# One run of the preprocessor answers for every header, wherever CPPFLAGS or the
# system keeps them: it prints a word for each that is there. (The blanks it puts
# into oneDNN's version are taken out again.)
hash  := \#
probe  = $(hash)if __has_include(<$1>)\n$2\n$(hash)endif\n
found := $(shell printf '$(call probe,CLI/CLI.hpp,cli11)$(call probe,spdlog/spdlog.h,spdlog)$(call \
    probe,pcre2.h,pcre2)$(call probe,unicode/normalizer2.h,icu)$(call \
    probe,sentencepiece_processor.h,sentencepiece)$(call \
    probe,fmt/format.h,fmt)$(call probe,zlib.h,zlib)$(call probe,zstd.h,zstd)$(call \
    probe,toml++/toml.h,toml)$(call probe,hwloc.h,hwloc)$(call probe,sodium.h,sodium)$(call \
    probe,nlohmann/json.hpp,json)$(call probe,xxhash.h,xxhash)$(call \
    probe,gtest/gtest.h,gtest)$(call probe,nccl.h,nccl)$(call probe,oneapi/dnnl/dnnl.hpp,$(hash)include \
    <oneapi/dnnl/dnnl_version.h>\nonednn=DNNL_VERSION_MAJOR.DNNL_VERSION_MINOR.DNNL_VERSION_PATCH)' | \
    $(CXX) $(CPPFLAGS) $(cuda_isystem) -E -P -x c++ - 2>/dev/null | tr -d ' ')

onednn := $(patsubst onednn=%,%,$(filter onednn=%,$(found)))

# OpenBLAS only in its OpenMP build: the pthread build, which is what plain
# -lopenblas usually finds, runs a second thread pool that fights with OpenMP's.
openblas_dir     := $(patsubst %/libopenblas.so,%,$(firstword \
    $(wildcard $(addsuffix /openblas-openmp/libopenblas.so,/usr/lib/$(multiarch) /usr/lib/*))))
openblas_include := $(patsubst %/cblas.h,%,$(firstword \
    $(wildcard $(addsuffix /openblas-openmp/cblas.h,/usr/include/$(multiarch) /usr/include/*))))
openblas         := $(and $(openblas_dir),$(openblas_include))

ifeq ($(BLAS),auto)
    blas := $(if $(onednn),onednn,$(if $(openblas),openblas))
else ifneq ($(filter $(BLAS),onednn openblas),)
    blas := $(if $($(BLAS)),$(BLAS))
else
    $(error BLAS=$(BLAS): choose onednn or openblas)
endif
blas_text := $(if $(filter onednn,$(blas)),oneDNN $(onednn),$(if $(blas),OpenBLAS (OpenMP build),no BLAS))

missing := $(strip \
    $(if $(compiler_version),,a_C++_compiler) \
    $(if $(filter cli11,$(found)),,CLI11) \
    $(if $(filter spdlog,$(found)),,spdlog) \
    $(if $(filter fmt,$(found)),,fmt) \
    $(if $(filter json,$(found)),,nlohmann-json) \
    $(if $(filter toml,$(found)),,toml++) \
    $(if $(filter hwloc,$(found)),,hwloc) \
    $(if $(filter sodium,$(found)),,libsodium) \
    $(if $(filter xxhash,$(found)),,xxhash) \
    $(if $(filter pcre2,$(found)),,PCRE2) \
    $(if $(filter zlib,$(found)),,zlib) \
    $(if $(filter zstd,$(found)),,zstd) \
    $(if $(filter icu,$(found)),,ICU) \
    $(if $(blas),,$(if $(filter auto,$(BLAS)),oneDNN_or_OpenBLAS_for_OpenMP,$(BLAS))))

mpicxx    := $(shell command -v mpicxx 2>/dev/null)

cuda_release := $(if $(nvcc),$(shell $(nvcc) --version | sed -n 's/.*release \([0-9.]*\).*/\1/p'))

# ---- sources and the features they bring -------------------------------------------

# $(call files,FOLDER,NAME): every such file under FOLDER, in a fixed order.
files = $(sort $(shell find $1 -type f -name '$2' 2>/dev/null))

all_sources  := $(call files,llmc,*.cpp)
cuda_sources := $(call files,llmc/backend/cuda,*.cu) $(filter llmc/backend/cuda/%,$(all_sources))
mpi_sources  := $(filter llmc/comm/mpi%,$(all_sources))
nccl_sources := $(filter llmc/comm/nccl%,$(all_sources))

with_sentencepiece := $(and $(filter 1,$(SENTENCEPIECE)),$(filter sentencepiece,$(found)))
backend_is_whole := $(and $(wildcard llmc/backend/cuda/attention_cached.cu),$(wildcard llmc/backend/cuda/column_sum.cu))
with_cuda := $(and $(filter 1,$(CUDA)),$(nvcc),$(backend_is_whole),yes)
with_mpi  := $(and $(filter 1,$(MPI)),$(mpicxx),$(mpi_sources),yes)
with_nccl := $(and $(with_cuda),$(filter nccl,$(found)),$(nccl_sources),yes)

# The kernels' tests, which run them on the CPU, need only CUDA's headers. Not under SAN=1: the address sanitizer does
# not know the threads' stacks, and the kernels' accesses are checked anyway.
with_cuda_tests := $(and $(filter 1,$(CUDA)),$(cuda_include),$(filter release debug,$(flavour)),yes)

library_sources := \
    $(filter-out $(cuda_sources) $(mpi_sources) $(nccl_sources),$(all_sources)) \
    $(if $(with_cuda),$(cuda_sources)) $(if $(with_mpi),$(mpi_sources)) $(if $(with_nccl),$(nccl_sources))
test_sources    := $(filter-out tests/e2e/% tests/chaos/% tests/cuda/% tests/cuda_on_cpu/%,$(call files,tests,*.cpp))
fuzz_sources    := $(filter tests/fuzz/%,$(test_sources))
bench_sources   := $(sort $(wildcard dev/bench/*.cpp))

# UNITY=n: up to n neighbours in a folder are compiled as one file, by the name of the first, which makes a build from
# nothing much shorter and every other one longer. Those that go along with FILE are $(with_FILE).
UNITY ?= 0
ifneq ($(UNITY),0)
    alone     := $(shell grep -v '^\#' dev/compiled_alone.txt)
    of_folder = $(foreach file,$2,$(if $(filter $1,$(dir $(file))),$(file)))
    beyond    := $(words $(shell seq 0 $(UNITY)))
    together  = $(if $1,$(firstword $1) $(eval with_$(firstword $1) := $(wordlist 2,$(UNITY),$1))$(call \
        together,$(wordlist $(beyond),9999,$1)))
    compiled  = $(filter $(alone),$1) $(foreach folder,$(sort $(dir $1)),$(call \
        together,$(call of_folder,$(folder),$(filter-out $(alone),$1))))
else
    compiled = $1
endif

main_object     := $(obj)/train_gpt.cu.o
# Kernels for a GPU do not depend on the processor: both builds of a package share them.
kernel_obj      := $(if $(WIDE),build/dist/obj,$(obj))
library_objects := $(patsubst %,$(kernel_obj)/%.o,$(filter %.cu,$(library_sources))) \
    $(patsubst %,$(obj)/%.o,$(call compiled,$(filter-out %.cu,$(library_sources))))
test_objects    := $(patsubst %,$(obj)/%.o,$(call compiled,$(test_sources)))
bench_objects   := $(bench_sources:%=$(obj)/%.o)
bench_programs  := $(bench_sources:dev/bench/%.cpp=$(BUILD)/bench/%)

# cuda_tests: the library with its CUDA backend once more, kernels compiled for the executor in dev/cuda_on_cpu, which
# also stands in for NVIDIA's libraries. gpu_tests: the same tests of kernels on a card.
cpu_kernels     := $(call files,llmc/backend/cuda,*.cu) $(call files,tests/cuda tests/cuda_on_cpu,*.cu)
cuda_host       := llmc/backend/make_backend.cpp llmc/comm/make_comm.cpp $(filter llmc/backend/cuda/%,$(all_sources)) \
    $(if $(filter nccl,$(found)),$(nccl_sources)) $(call files,tests/cuda tests/cuda_on_cpu,*.cpp) \
    $(filter-out $(if $(filter nccl,$(found)),,dev/cuda_on_cpu/nccl%),$(call files,dev/cuda_on_cpu,*.cpp))
cuda_test_objects := $(cpu_kernels:%=$(obj)/cuda_on_cpu/%.o) $(cuda_host:%=$(obj)/cuda_on_cpu/%.o)
emulated_objects  := $(filter-out $(obj)/cuda_on_cpu/tests/%,$(cuda_test_objects))
gpu_test_objects  := $(patsubst %,$(obj)/%.o,$(call files,tests/cuda,*.cu) $(call files,tests/cuda,*.cpp))
plain_objects     := $(filter-out $(obj)/llmc/backend/make_backend.% $(obj)/llmc/backend/cuda/% \
    $(obj)/llmc/comm/make_comm.% $(obj)/llmc/comm/nccl%,$(library_objects))

# ---- flags ---------------------------------------------------------------------------

# Kernels are optimised fully; for the rest -O1 is as fast to run and much faster to build.
optimise_release := -O1
optimise_dist    := -O1
optimise_debug   := -O1 -g -D_GLIBCXX_ASSERTIONS
optimise_san     := $(optimise_debug) -fsanitize=address,undefined -fno-sanitize-recover=all \
                    -fno-omit-frame-pointer
optimise_tsan    := $(optimise_debug) -fsanitize=thread -fno-omit-frame-pointer
# In the package no file knows in which folder it was made.
optimise_dist    += -ffile-prefix-map=$(CURDIR)=.

# What gcc 12 wrongly reports: in its own AVX-512 headers (its bug 105593), and, when it
# optimises fully or adds sanitizers, in std::string (105329) and fmt. Debug builds keep the rest of the checks.
false_alarms_debug   := -Wno-maybe-uninitialized
false_alarms_san     := $(false_alarms_debug) -Wno-stringop-overflow
false_alarms_tsan    := $(false_alarms_san)
false_alarms_release := $(false_alarms_debug) -Wno-uninitialized -Wno-restrict -Wno-stringop-overflow
false_alarms_dist    := $(false_alarms_release)

features := -DLLMC_WITH_$(if $(filter openblas,$(blas)),OPENBLAS,ONEDNN)
includes := -I. $(if $(filter openblas,$(blas)),-isystem $(openblas_include))

# spdlog in its compiled form: the header-only one costs seconds per file.
preprocess := $(includes) $(features) -DSPDLOG_COMPILED_LIB -DSPDLOG_FMT_EXTERNAL $(CPPFLAGS)
warn       := -Wall -Wextra $(if $(findstring clang,$(CXX)),,$(false_alarms_$(flavour))) $(if \
    $(filter 1,$(WERROR)),-Werror)
# No errno from math functions and no trapping: both only stop loops from vectorising.
compile    := $(CXX) -std=c++20 $(optimise_$(flavour)) -march=$(ARCH)$(if $(WIDE), -mavx512bf16) -fopenmp -pthread \
    -fno-math-errno -fno-trapping-math $(warn) $(CXXFLAGS) $(preprocess)

# Files named *_hopper.cu use what only compute capability 9.0 has: machine code for it alone, no PTX for what is newer.
nvcc_archs = $(foreach a,$(GPU_ARCH),-gencode arch=compute_$a,code=sm_$a) \
    -gencode arch=compute_$(lastword $(GPU_ARCH)),code=compute_$(lastword $(GPU_ARCH))
%_hopper.cu.o: nvcc_archs := -gencode arch=compute_90a,code=sm_90a
nvcc_compile = $(nvcc) -ccbin '$(CXX)' -std=c++20 \
    $(if $(filter debug san tsan,$(flavour)),-O1 -g -DLLMC_COUNT_WAITS,-O3) $(nvcc_archs) \
    -Xptxas -v -Xcompiler -Wall,-Wextra,-fopenmp $(if $(filter 1,$(WERROR)),-Werror all-warnings) $(preprocess)

# Kernels for the CPU: every access is checked through the thread sanitizer's hooks (its library is not linked). Not
# vectorised, so that accesses stay those of the source; multiplications and additions rounded one by one.
cuda_on_cpu  := -DLLMC_CUDA_ON_CPU -DLLMC_WITH_CUDA -DLLMC_GPU_ARCH='"the CPU"' -g1 $(cuda_isystem)
cpu_kernel_compile = $(CXX) -std=c++20 -O2 -march=$(ARCH) -fsanitize=thread -fno-tree-vectorize -ffp-contract=off \
    $(warn) -Wno-unknown-pragmas -Wno-psabi $(CXXFLAGS) $(preprocess) $(cuda_on_cpu)

# Open MPI's compiler says what it adds to g++, MPICH's the whole command.
mpi_says    = $(if $(with_mpi),$(shell $(mpicxx) -showme:$1 2>/dev/null || $(mpicxx) -$1_info 2>/dev/null))
mpi_include := $(patsubst -I%,-isystem %,$(filter -I%,$(call mpi_says,compile)))
mpi_link    := $(filter -L% -l%,$(call mpi_says,link))

# RPATH rather than RUNPATH: it also holds for the libraries of our libraries.
rpaths := $(if $(filter openblas,$(blas)),$(openblas_dir)) $(if $(with_cuda),$(wildcard $(CUDA_HOME)/lib64))
# No symbols are in the package: nvcc leaves names of its temporary files among them, which have a process's number.
link   := $(CXX) $(filter-out -DLLMC%,$(optimise_$(flavour))) $(if $(filter dist,$(flavour)),-Wl$(comma)-s) \
    -fopenmp -pthread -Wl,--as-needed \
    -Wl,--disable-new-dtags $(LDFLAGS)
plain_libs := -lspdlog -lfmt -lxxhash -lpcre2-8 -lz -lzstd -licuuc -lhwloc -lsodium \
    $(if $(with_sentencepiece),-lsentencepiece) \
    $(if $(filter openblas,$(blas)),-L$(openblas_dir) -lopenblas,-ldnnl) \
    $(mpi_link) $(rpaths:%=-Wl,-rpath,%) $(LDLIBS)
# None of them needs the driver to start; the driver's own library is found at run time by NVIDIA's.
cudart := $(if $(wildcard $(CUDA_HOME)/lib64/libcudart_static.a),-lcudart_static -ldl -lrt,-lcudart -ldl)
libs   := $(if $(with_cuda),-L$(CUDA_HOME)/lib64 $(cudart)) $(plain_libs)

# In the package the binary stands above lib/, the other programs beside it.
origin :=
ifeq ($(DIST),1)
    $(BUILD)/train_gpt:    origin := -Wl,-rpath,'$$ORIGIN/$(if $(WIDE),..,lib)'
    $(BUILD)/tests $(BUILD)/gpu_tests $(bench_programs):    origin := -Wl,-rpath,'$$ORIGIN/../lib'
endif

# The same in every clone: twelve digits, whatever else a clone has, and only annotated tags. What git does not know yet
# makes it dirty, too, where it would be built or packed.
version := $(if $(wildcard .git),$(shell git describe --always --abbrev=12 2>/dev/null)$(if $(shell \
    git --no-optional-locks status --porcelain -- Makefile LICENSE README.md train_gpt.cu data dev llmc scripts tests \
    2>/dev/null),-dirty))
ifeq ($(version),)
    version := unknown
endif

commit := $(or $(if $(wildcard .git),$(shell git rev-parse HEAD 2>/dev/null)),unknown)

# ---- stamps: files rewritten only when their text changes -----------------------------

# -march=native means another processor on another machine: what it resolves to
# belongs to the flags, so that a shared or cached build folder is rebuilt there.
native := $(if $(filter native,$(ARCH)),$(shell $(CXX) -march=native -Q --help=target 2>/dev/null | cksum))

export FLAGS_TEXT   := $(compiler_version) $(native) $(compile)$(if $(filter-out 0,$(UNITY)), \
    $(UNITY) $(alone) $(library_sources) $(test_sources))
export CUDA_TEXT    := $(if $(with_cuda),$(nvcc_compile)) $(if $(with_cuda_tests),$(cpu_kernel_compile))
export SOURCES_TEXT := $(link) $(libs) $(library_sources) $(test_sources) $(bench_sources) $(cpu_kernels) $(cuda_host)

absent := $(if $(with_sentencepiece),,SentencePiece) \
    $(if $(with_mpi),,MPI) $(if $(with_nccl),,NCCL) $(if $(with_cuda),,CUDA)
empty  :=
space  := $(empty) $(empty)
present := $(if $(with_sentencepiece), + SentencePiece)$(if \
    $(with_mpi), + MPI)$(if $(with_nccl), + NCCL)$(if $(with_cuda), + CUDA)
summary := $(notdir $(firstword $(CXX))) $(compiler_version), $(flavour) for $(ARCH), $(blas_text)$(present)$(if \
    $(strip $(absent)),; without $(subst $(space),$(comma) ,$(strip $(absent))))

# What --version says beside the version; nothing in it depends on where or when it was built.
about_compiler := $(notdir $(firstword $(CXX))) $(compiler_version), $(flavour) for $(ARCH)
# Versions are of what is here to compile with, where it says so; NCCL's library is the machine's own.
nccl_header := $(if $(with_nccl),$(firstword $(wildcard $(addsuffix /nccl.h,$(cuda_include) /usr/include))))
nccl_text   := NCCL $(if $(nccl_header),$(subst $(space),.,$(foreach part,MAJOR MINOR PATCH,$(shell \
    sed -n 's/^$(hash)define NCCL_$(part) *//p' $(nccl_header)))))
mpi_text    := $(or $(if $(with_mpi),$(shell $(mpicxx) -showme:version 2>/dev/null | \
    sed -n 's/.*\(Open MPI [0-9.]*\).*/\1/p')),MPI)
about_features := $(blas_text)$(if $(with_sentencepiece),$(comma) $(strip SentencePiece $(shell \
    pkg-config --modversion sentencepiece 2>/dev/null)))$(if \
    $(with_mpi),$(comma) $(mpi_text))$(if $(with_nccl),$(comma) $(nccl_text))
about_cuda := $(if $(with_cuda),$(cuda_release)$(comma) for $(GPU_ARCH),none)
about := $(commit) $(about_compiler) $(about_features) $(about_cuda)

export VERSION_TEXT := $(version) $(about)

missing_text := $(subst _, ,$(subst $(space),$(comma) ,$(missing)))

write_if_changed = mkdir -p $(BUILD) && { printf '%s\n' "$$$1" | cmp -s - $@ || printf '%s\n' "$$$1" > $@; }

$(BUILD)/flags: FORCE
	$(if $(missing),$(error train_gpt needs $(missing_text): run scripts/install_deps.sh))
	@echo 'train_gpt $(version): $(summary)'
	@$(call write_if_changed,FLAGS_TEXT)

# What concerns CUDA's files alone does not compile the rest anew.
$(BUILD)/cuda_flags: FORCE
	@$(call write_if_changed,CUDA_TEXT)

$(BUILD)/sources: FORCE
	@$(call write_if_changed,SOURCES_TEXT)

$(BUILD)/version: FORCE
	@$(call write_if_changed,VERSION_TEXT)

FORCE:
.PHONY: FORCE

# ---- compiling and linking --------------------------------------------------------------

.PHONY: all train_gpt
all: train_gpt

# A release build also appears at the top, as a hard link where that is possible.
# (Phony: after a build for another ARCH a time stamp could not tell which one is there.)
train_gpt: $(BUILD)/train_gpt
ifeq ($(flavour),release)
	@test ./train_gpt -ef $< || ln -f $< ./train_gpt 2>/dev/null || cp -f $< ./train_gpt
endif

$(BUILD)/train_gpt: $(main_object) $(library_objects) $(BUILD)/sources
	$(call say,LINK,$@)
	$(quiet)$(link) $(origin) $(filter %.o,$^) $(libs) -o $@

$(BUILD)/tests: $(test_objects) $(library_objects) $(BUILD)/sources
	$(if $(test_sources),,$(error there are no tests/**/*.cpp to build))
	$(call say,LINK,$@)
	$(quiet)$(link) $(origin) $(filter %.o,$^) -lgtest_main -lgtest $(libs) -o $@

# The parsers' tests alone.
$(BUILD)/fuzz: $(fuzz_sources:%=$(obj)/%.o) $(library_objects) $(BUILD)/sources
	$(call say,LINK,$@)
	$(quiet)$(link) $(filter %.o,$^) -lgtest_main -lgtest $(libs) -o $@

# What tests/chaos/run.sh preloads.
$(BUILD)/faults.so: tests/chaos/faults.cpp tests/chaos/disk_image.h $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CXX,$<)
	$(quiet)$(CXX) -std=c++20 -O1 -I. $(warn) $(CXXFLAGS) -shared -fPIC $< -o $@ -ldl

$(BUILD)/cuda_tests: $(cuda_test_objects) $(plain_objects) $(BUILD)/sources
	$(call say,LINK,$@)
	$(quiet)$(link) $(filter %.o,$^) -lgtest $(plain_libs) -o $@

# The whole program with the same stand-ins, for tests/e2e/cuda.sh.
$(BUILD)/train_gpt_cuda_on_cpu: $(main_object) $(emulated_objects) $(plain_objects) $(BUILD)/sources
	$(call say,LINK,$@)
	$(quiet)$(link) $(filter %.o,$^) $(plain_libs) -o $@

$(BUILD)/gpu_tests: $(gpu_test_objects) $(library_objects) $(BUILD)/sources
	$(if $(with_cuda),,$(error the tests on a card need nvcc and CUDA=1))
	$(call say,LINK,$@)
	$(quiet)$(link) $(origin) $(filter %.o,$^) -lgtest_main -lgtest $(libs) -o $@

$(bench_programs): $(BUILD)/bench/%: $(obj)/dev/bench/%.cpp.o $(library_objects) $(BUILD)/sources
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(quiet)$(link) $(origin) $(filter %.o,$^) $(libs) -o $@

# The last -O counts. Kernels and what streams through data are worth the compiler's time.
ifneq ($(filter release dist,$(flavour)),)
    $(obj)/llmc/backend/cpu/%.o: level := -O3
    $(obj)/llmc/io/%.o $(obj)/llmc/plan/%.o $(obj)/tests/backend/%.o: level := -O2
endif

# Its formulas round every product before the sum it enters, in all builds.
$(obj)/llmc/base/nf4.cpp.o: level := $(if $(filter release dist,$(flavour)),-O3) -ffp-contract=off

# Sanitized kernels are vectorised as well: sums keep the order whose error the tests know.
ifneq ($(filter san tsan,$(flavour)),)
    $(obj)/llmc/backend/cpu/%.o: level := -O3
endif

$(obj)/%.cpp.o: %.cpp $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CXX,$< $(with_$<))
	$(quiet)$(compile) $(level) $(defines) $(addprefix -include ,$(with_$<)) -MMD -MP -c $< -o $@

# The main file is called .cu by custom of this family of programs; it is plain C++.
$(main_object): train_gpt.cu $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CXX,$<)
	$(quiet)$(compile) -MMD -MP -x c++ -c $< -o $@

# What ptxas says of registers and spills is kept beside the object; tests/e2e/gpu_build.sh reads it.
$(obj)/%.cu.o: %.cu $(BUILD)/cuda_flags
	@mkdir -p $(@D)
	$(call say,NVCC,$<)
	$(quiet)$(nvcc_compile) -MMD -MP -c $< -o $@ 2> $@.log || { cat $@.log >&2; exit 1; }

$(obj)/cuda_on_cpu/%.cu.o: %.cu $(BUILD)/cuda_flags
	@mkdir -p $(@D)
	$(call say,CXX,$< on the CPU)
	$(quiet)$(cpu_kernel_compile) -MMD -MP -x c++ -c $< -o $@

$(obj)/cuda_on_cpu/dev/%: level := -O3
$(obj)/cuda_on_cpu/%.cpp.o: %.cpp $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CXX,$< on the CPU)
	$(quiet)$(compile) $(level) $(cuda_on_cpu) $(defines) -MMD -MP -c $< -o $@

# The version reaches two files only, so that a commit recompiles no others.
$(obj)/llmc/base/version.cpp.o: defines = -DLLMC_VERSION='"$(version)"'
$(obj)/llmc/train/about.cpp.o: defines = -DLLMC_COMMIT='"$(commit)"' -DLLMC_COMPILER='"$(about_compiler)"' \
    -DLLMC_FEATURES='"$(about_features)"' -DLLMC_CUDA='"$(strip $(about_cuda))"'
$(obj)/llmc/base/version.cpp.o $(obj)/llmc/train/about.cpp.o: $(BUILD)/version

# CUDA's headers are for its own files, and one file makes its backend.
cuda_compile := $(if $(with_cuda),-DLLMC_WITH_CUDA -DLLMC_CUDA_LIBRARIES='"$(CUDA_HOME)/lib64"' \
    -DLLMC_GPU_ARCH='"$(GPU_ARCH)"' $(cuda_isystem))
$(obj)/llmc/backend/cuda/%.o $(obj)/tests/cuda/%.o: defines = $(cuda_compile)
$(obj)/llmc/backend/make_backend.cpp.o: defines = $(cuda_compile)
$(obj)/llmc/backend/make_backend.cpp.o $(obj)/llmc/backend/cuda/device.cpp.o: $(BUILD)/cuda_flags

# The headers of MPI and NCCL are for the file of each, and one file chooses among the transports that are there.
$(obj)/llmc/comm/mpi.cpp.o: defines = $(mpi_include) -DOMPI_SKIP_MPICXX -DMPICH_SKIP_MPICXX
$(obj)/llmc/comm/nccl%: defines = $(cuda_compile)
$(filter $(obj)/llmc/comm/nccl%,$(library_objects)): $(BUILD)/cuda_flags
has_comm = $(if $(with_mpi),-DLLMC_WITH_MPI) $(if $1,-DLLMC_WITH_NCCL)
$(obj)/llmc/comm/make_comm.cpp.o: defines = $(call has_comm,$(with_nccl))
$(obj)/cuda_on_cpu/llmc/comm/make_comm.cpp.o: defines = $(call has_comm,$(filter nccl,$(found)))
$(obj)/llmc/comm/make_comm.cpp.o $(obj)/cuda_on_cpu/llmc/comm/make_comm.cpp.o: $(BUILD)/sources

# One file uses SentencePiece; whether it may is part of the link's flags, so they make it anew.
$(obj)/llmc/io/sentencepiece_tokenizer.cpp.o: defines = $(if $(with_sentencepiece),-DLLMC_WITH_SENTENCEPIECE)
$(obj)/llmc/io/sentencepiece_tokenizer.cpp.o: $(BUILD)/sources

# Said once here rather than as an error in every test file.
$(test_objects) $(cuda_test_objects) $(gpu_test_objects): | need_gtest
.PHONY: need_gtest
need_gtest:
	$(if $(filter gtest,$(found)),,$(error the tests need GoogleTest: run scripts/install_deps.sh))
	@:

-include $(patsubst %.o,%.d,$(main_object) $(library_objects) $(test_objects) $(bench_objects) \
    $(cuda_test_objects) $(gpu_test_objects))

# ---- running -------------------------------------------------------------------------------

ifeq ($(flavour),release)
    binary := ./train_gpt
else
    binary := $(BUILD)/train_gpt
endif

.PHONY: train chat finetune test test-long chaos kernels-report fuzz lint format bench dist dist_package info help clean
train: all
	@data/demo.sh
	$(strip $(binary) $(ARGS))

chat: all
	@scripts/chat.sh $(binary)

finetune: all
	@scripts/finetune.sh $(binary)

tested := $(BUILD)/tests $(BUILD)/faults.so \
    $(if $(with_cuda_tests),$(BUILD)/cuda_tests $(BUILD)/train_gpt_cuda_on_cpu)
test: all $(tested)
	$(if $(with_cuda_tests),,@echo 'tests of the CUDA kernels: skipped ($(if \
	    $(cuda_include),not in the $(flavour) flavour or CUDA=0,no CUDA headers))')
	@tests/run.sh $(BUILD)

test-long: all $(tested)
	@tests/run.sh $(BUILD) long

HOURS ?= 1
SEED  ?= $(shell date +%s)
chaos: all $(BUILD)/faults.so
	@work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && WORK_DIR=$$work BUILD_DIR='$(abspath $(BUILD))' \
	    TRAIN_GPT='$(abspath $(binary))' CHAOS_SECONDS=$$(awk 'BEGIN { print int(3600 * $(HOURS)) }') \
	    CHAOS_SEED='$(SEED)' tests/e2e/chaos.sh

kernels-report: $(filter %_hopper.cu.o,$(library_objects))
	@CUDA_HOME='$(CUDA_HOME)' dev/cuda_on_cpu/kernels_report.sh $^

MINUTES ?= 10
ifeq ($(flavour),san)
fuzz: $(BUILD)/fuzz
	@ASAN_OPTIONS=abort_on_error=1:max_allocation_size_mb=4096 UBSAN_OPTIONS=print_stacktrace=1:abort_on_error=1 \
	    LSAN_OPTIONS=suppressions=dev/lint/leaks.supp:print_suppressions=0 \
	    FUZZ_SECONDS=$$(awk 'BEGIN { print 60 * $(MINUTES) }') $<
else
fuzz:
	+@$(MAKE) --no-print-directory SAN=1 CUDA=0 fuzz
endif

lint:
	@status=0; \
	dev/lint/check_includes.sh || status=1; \
	dev/lint/check_text.sh || status=1; \
	dev/lint/check_kernels.sh || status=1; \
	dev/lint/check_together.sh || status=1; \
	dev/lint/check_format.sh || status=1; \
	exit $$status

format:
	@dev/lint/check_format.sh --fix

# Each script finds the binary in $TRAIN_GPT and the bench programs in $BENCH_BIN,
# prints its own table, and exits non-zero when a stated target is missed.
bench: all $(bench_programs)
	@set -- dev/bench/$(or $(BENCH),*).sh; \
	test -e "$$1" || { echo 'there is no dev/bench/$(or $(BENCH),*).sh' >&2; exit 1; }; \
	status=0; \
	for script in "$$@"; do \
	    echo "== $$script"; \
	    TRAIN_GPT='$(abspath $(binary))' BENCH_BIN='$(abspath $(BUILD)/bench)' "$$script" || \
	        { echo "$$script failed"; status=1; }; \
	done; \
	exit $$status

# ---- the package ------------------------------------------------------------------------------

package := $(BUILD)/train_gpt-$(subst /,-,$(version))-$(machine)

# The time that everything in it has: that of the commit, so that the same commit makes the same bytes.
epoch = $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null),0)

# Built apart (build/dist), for a processor most machines have and with its libraries beside it; and once more for those
# with the widest vectors and bf16, which the first starts in its place where it can (llmc/backend/make_backend.cpp).
wide := avx512-bf16
dist:
	+@$(MAKE) --no-print-directory DIST=1 build/dist/train_gpt
	+@$(if $(filter x86_64,$(machine)),$(MAKE) --no-print-directory DIST=1 WIDE=$(wide) ARCH=x86-64-v4 \
	    build/dist-$(wide)/train_gpt)
	+@$(MAKE) --no-print-directory DIST=1 dist_package

# Of the source tree what git knows of these; where there is no git, all.
packed := README.md LICENSE data/demo.sh data/chat.sh data/chat.jinja tests/run.sh tests/e2e tests/golden tests/chaos \
    dev/dist $(wildcard scripts/*.sh scripts/*.bash scripts/*.py scripts/slurm) \
    $(wildcard dev/bench/*.sh dev/bench/*.bash dev/bench/*.py)
list_packed := $(if $(wildcard .git),git ls-files -z -- $(packed),find $(packed) -type f -print0)

# Linked into the programs, or the tests.
static_libraries = $(filter /%,$(foreach name,libgtest.a libgtest_main.a,$(shell $(CXX) -print-file-name=$(name)))) \
    $(if $(with_cuda),$(addsuffix $(comma)$(cuda_release),$(wildcard $(CUDA_HOME)/lib64/libcudart_static.a)))

dist_package: $(BUILD)/train_gpt $(BUILD)/tests $(if $(with_cuda),$(BUILD)/gpu_tests) $(bench_programs)
	@rm -rf '$(package)' '$(package).tar.gz'
	@mkdir -p '$(package)/bin' '$(package)/lib'
	@$(list_packed) | xargs -0 cp -P --parents -t '$(package)'
	@cp $(BUILD)/train_gpt '$(package)/'
	@cp $(filter-out $(BUILD)/train_gpt,$^) '$(package)/bin/'
	@if [ -x build/dist-$(wide)/train_gpt ]; then mkdir '$(package)/lib/$(wide)' && \
	    cp build/dist-$(wide)/train_gpt '$(package)/lib/$(wide)/'; fi
	@dev/dist/libraries.sh $^ > '$(BUILD)/libraries'
	@dev/dist/libraries.sh --left $^ > '$(BUILD)/libraries_left'
	@xargs -r cp -L -t '$(package)/lib' < '$(BUILD)/libraries'
	@sed 's/^/--left=/' '$(BUILD)/libraries_left' | cat '$(BUILD)/libraries' - | xargs dev/dist/sbom.sh '$(version)' \
	    '$(epoch)' $(addprefix --static=,$(static_libraries)) > '$(package)/sbom.spdx.json'
	@dev/dist/pack.sh '$(package)' '$(package).tar.gz' '$(epoch)'
	@echo 'package: $(package).tar.gz'

# ---- telling --------------------------------------------------------------------------------------

feature = $(if $1,$2,not found)$(if $3,, (not built in$(if $(strip $4),, — no sources)))

info:
	@echo 'version   $(version)'
	@echo 'flavour   $(flavour) for $(ARCH), objects in $(BUILD)'
	@echo 'compiler  $(CXX) $(or $(compiler_version),not found)'
	@echo 'BLAS      $(blas_text)$(if $(openblas),$(if $(filter onednn,$(blas)),; OpenBLAS (OpenMP build) is there too))'
	@echo 'SentencePiece  $(or $(with_sentencepiece:sentencepiece=found),not found)'
	@echo 'MPI       $(call feature,$(mpicxx),$(mpicxx),$(with_mpi),$(mpi_sources))'
	@echo 'NCCL      $(call feature,$(filter nccl,$(found)),found,$(with_nccl),$(nccl_sources))'
	@echo 'CUDA      $(call feature,$(nvcc),$(nvcc) $(cuda_release),$(with_cuda),$(cuda_sources))'
	@echo 'missing   $(or $(missing_text),nothing)$(if $(filter gtest,$(found)),,; for the tests: GoogleTest)'
	@echo 'sources   $(words $(library_sources)) of the library, $(words $(test_sources)) of the tests'
	@echo 'compile   $(strip $(compile))'
	@echo 'link      $(strip $(link) ... $(libs))'

export HELP
help:
	@printf '%s\n' "$$HELP"

clean:
	rm -rf build train_gpt
