#include "llmc/backend/cpu/topology.h"

#include <hwloc.h>

#include <algorithm>
#include <set>

namespace llmc::cpu {
namespace {

struct FreeBitmap {
    void operator()(hwloc_bitmap_t bitmap) const { hwloc_bitmap_free(bitmap); }
};
using Bitmap = std::unique_ptr<hwloc_bitmap_s, FreeBitmap>;

std::vector<int> ids_of(hwloc_const_bitmap_t bitmap) {
    std::vector<int> ids;
    for (int id = hwloc_bitmap_first(bitmap); id >= 0; id = hwloc_bitmap_next(bitmap, id)) ids.push_back(id);
    return ids;
}

}  // namespace

void Topology::Destroy::operator()(hwloc_topology* topology) const { hwloc_topology_destroy(topology); }

Topology::Topology(const std::string& synthetic) {
    hwloc_topology_t topology = nullptr;
    if (hwloc_topology_init(&topology) != 0) return;
    std::unique_ptr<hwloc_topology, Destroy> loaded(topology);
    // Processors that a control group keeps from us, too. To look is not to move threads about.
    hwloc_topology_set_flags(topology,
                             HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED | HWLOC_TOPOLOGY_FLAG_DONT_CHANGE_BINDING);
    hwloc_topology_set_all_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_NONE);
    hwloc_topology_set_type_filter(topology, HWLOC_OBJ_PACKAGE, HWLOC_TYPE_FILTER_KEEP_ALL);
    hwloc_topology_set_type_filter(topology, HWLOC_OBJ_CORE, HWLOC_TYPE_FILTER_KEEP_ALL);
    if (!synthetic.empty() && hwloc_topology_set_synthetic(topology, synthetic.c_str()) != 0) return;
    if (hwloc_topology_load(topology) == 0) topology_ = std::move(loaded);
}

std::vector<int> Topology::processors() const {
    return topology_ ? ids_of(hwloc_topology_get_topology_cpuset(topology_.get())) : std::vector<int>{};
}

int Topology::cores_of(const std::vector<int>& processors) const {
    std::set<int> cores;  // Named by their first processor.
    for (const int id : processors) {
        const hwloc_obj_t unit =
            topology_ && id >= 0 ? hwloc_get_pu_obj_by_os_index(topology_.get(), static_cast<unsigned>(id)) : nullptr;
        const hwloc_obj_t core =
            unit != nullptr ? hwloc_get_ancestor_obj_by_type(topology_.get(), HWLOC_OBJ_CORE, unit) : nullptr;
        cores.insert(core != nullptr ? hwloc_bitmap_first(core->cpuset) : id);
    }
    return std::max(1, static_cast<int>(cores.size()));
}

std::vector<int> Topology::unbind_this_thread() const {
    if (!topology_) return {};
    const hwloc_topology_t topology = topology_.get();
    const Bitmap given(hwloc_bitmap_alloc());
    const hwloc_const_bitmap_t all = hwloc_topology_get_complete_cpuset(topology);
    if (given == nullptr || hwloc_set_cpubind(topology, all, HWLOC_CPUBIND_THREAD) != 0) return {};
    return hwloc_get_cpubind(topology, given.get(), HWLOC_CPUBIND_THREAD) == 0 ? ids_of(given.get())
                                                                               : std::vector<int>{};
}

std::string Topology::processor_model() const {
    const hwloc_obj_t package = topology_ ? hwloc_get_obj_by_type(topology_.get(), HWLOC_OBJ_PACKAGE, 0) : nullptr;
    const char* const model = package != nullptr ? hwloc_obj_get_info_by_name(package, "CPUModel") : nullptr;
    return model != nullptr ? model : "";
}

const Topology& this_topology() {
    static const Topology topology;
    return topology;
}

}  // namespace llmc::cpu
