// SPDX-License-Identifier: Apache-2.0
#include "emulator/shadow.h"

namespace rnnfast::emulator {

Shadow::Shadow() : table_(64, nullptr) {}
Shadow::~Shadow() = default;

void Shadow::clear() {
  for (Page*& entry : table_) entry = nullptr;
  used_ = 0;
  last_ = nullptr;
  free_.clear();
  for (size_t i = many_.size(); i > 0; --i) free_.push_back(i - 1);
}

// Whether the earlier access is known to have happened before what `who` does now, by barriers alone.
inline bool Shadow::ordered(uint64_t earlier, const Observer& who) {
  if (Stamp::block(earlier) != Stamp::block(who.stamp)) {
    const size_t block = static_cast<size_t>(Stamp::block(earlier));
    return block < who.seen->size() && (*who.seen)[block] > Stamp::block_barriers(earlier);
  }
  return Stamp::block_barriers(earlier) < Stamp::block_barriers(who.stamp) ||
         Stamp::same_thread(earlier, who.stamp) ||
         (Stamp::same_warp(earlier, who.stamp) && Stamp::warp_barriers(earlier) < Stamp::warp_barriers(who.stamp));
}

inline bool Shadow::saturated(const Readers& readers, uint64_t stamp) {
  return readers.second && Stamp::same_phase(readers.first, stamp) &&
         !Stamp::same_warp(readers.first, readers.second);
}

// Readers are of one block and one phase. A reader that is ordered before a later one need not be kept: a write
// ordered after the later one is ordered after both. What is left is either one warp's lanes that have passed
// equally many of its barriers, of which any two convict every lane that could write, or lanes of two warps, of
// which one convicts it.
void Shadow::add_reader(Readers& readers, uint64_t stamp) {
  if (readers.first == stamp || readers.second == stamp) return;
  if (!readers.first || !Stamp::same_phase(readers.first, stamp)) {
    readers = {stamp, 0};
  } else if (!Stamp::same_warp(readers.first, stamp)) {
    if (!readers.second || Stamp::same_warp(readers.first, readers.second)) readers.second = stamp;
  } else if (!readers.second || Stamp::same_warp(readers.first, readers.second)) {
    if (Stamp::warp_barriers(readers.first) < Stamp::warp_barriers(stamp))
      readers = {stamp, 0};
    else if (!Stamp::same_thread(readers.first, stamp))
      readers.second = stamp;
  }
}

void Shadow::read(Cell& cell, const Observer& who) {
  Readers& readers = cell.readers;
  const int block = Stamp::block(who.stamp);
  if (!(readers.first & kMany)) {
    if (!readers.first || Stamp::block(readers.first) == block) return add_reader(readers, who.stamp);
    if (ordered(readers.first, who) && (!readers.second || ordered(readers.second, who))) {
      readers = {who.stamp, 0};
      return;
    }
    const size_t list = take_many();
    many_[list].resize(static_cast<size_t>(Stamp::block(readers.first)) + 1);
    many_[list].back() = readers;
    readers = {kMany | list, 0};
  }
  std::vector<Readers>& blocks = many_[readers.first & ~kMany];
  if (blocks.size() <= static_cast<size_t>(block)) blocks.resize(static_cast<size_t>(block) + 1);
  add_reader(blocks[static_cast<size_t>(block)], who.stamp);
}

// An empty list.
size_t Shadow::take_many() {
  if (free_.empty()) {
    many_.emplace_back();
    return many_.size() - 1;
  }
  const size_t list = free_.back();
  free_.pop_back();
  many_[list].clear();
  return list;
}

uint64_t Shadow::find_reader(const Cell& cell, const Observer& who) const {
  const auto find = [&](const Readers& readers) -> uint64_t {
    if (readers.first && !ordered(readers.first, who)) return readers.first;
    if (readers.second && !ordered(readers.second, who)) return readers.second;
    return 0;
  };
  if (!(cell.readers.first & kMany)) return find(cell.readers);
  for (const Readers& readers : many_[cell.readers.first & ~kMany])
    if (const uint64_t stamp = find(readers)) return stamp;
  return 0;
}

bool Shadow::access(const Observer& who, Access access, uintptr_t address, int bytes, bool must_be_written,
                    Conflict& conflict) {
  Page& p = last_ && last_->key == address >> kPageShift ? *last_ : page(address >> kPageShift);
  const size_t offset = address & ((1u << kPageShift) - 1);
  while (static_cast<int>(1u << p.shift) > bytes) halve(p);  // so is the offset, which is a multiple of bytes
  Cell* const end = p.cells.data() + ((offset + static_cast<size_t>(bytes)) >> p.shift);
  for (Cell* cell = p.cells.data() + (offset >> p.shift); cell != end; ++cell) {
    if (cell->writer && !ordered(cell->writer, who)) {
      conflict = {cell->writer, Access::kWrite};
      return false;
    }
    if (access == Access::kRead) {
      if (must_be_written && !cell->writer) {
        conflict = {0, Access::kRead};
        return false;
      }
      if (cell->readers.first != who.stamp && !saturated(cell->readers, who.stamp)) read(*cell, who);
    } else {
      const uint64_t reader = cell->readers.first ? find_reader(*cell, who) : 0;
      if (reader) {
        conflict = {reader, Access::kRead};
        return false;
      }
      if (cell->readers.first & kMany) free_.push_back(cell->readers.first & ~kMany);
      cell->writer = who.stamp;
      cell->readers = {};
    }
  }
  return true;
}

Shadow::Page& Shadow::page(uintptr_t key) {
  const auto slot = [&](uintptr_t k) {
    const size_t mask = table_.size() - 1;
    size_t i = (k * 0x9e3779b97f4a7c15u >> 20) & mask;
    while (table_[i] && table_[i]->key != k) i = (i + 1) & mask;
    return i;
  };
  size_t i = slot(key);
  if (!table_[i]) {
    if (2 * (used_ + 1) > table_.size()) {
      table_.assign(2 * table_.size(), nullptr);
      for (size_t k = 0; k < used_; ++k) table_[slot(pages_[k]->key)] = pages_[k].get();
      i = slot(key);
    }
    if (used_ == pages_.size()) pages_.push_back(std::make_unique<Page>());
    Page* const fresh = pages_[used_++].get();
    fresh->key = key;
    fresh->shift = 4;
    fresh->cells.assign(size_t{1} << (kPageShift - 4), Cell{});
    table_[i] = fresh;
  }
  last_ = table_[i];
  return *last_;
}

void Shadow::halve(Page& page) {
  std::vector<Cell> cells(2 * page.cells.size());
  for (size_t i = 0; i < cells.size(); ++i) {
    cells[i] = page.cells[i / 2];
    if (i % 2 == 1 && cells[i].readers.first & kMany) {  // each half its own list
      const size_t list = take_many();
      many_[list] = many_[cells[i].readers.first & ~kMany];
      cells[i].readers.first = kMany | list;
    }
  }
  page.cells.swap(cells);
  --page.shift;
}

}  // namespace rnnfast::emulator
