//go:build unix

package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"syscall"
	"time"
)

// DiskReserve is what a storage node leaves free on its disk, in bytes: with less it takes no file and makes no random
// data, so nothing more may be staked.
const DiskReserve = 1 << 30

// chainReserve is how much has to be free on the disk of a home for consensus to go on, in bytes. A database that cannot
// write its log ends the process in the middle of what it does; before that, consensus ends in order.
const chainReserve = 64 << 20

// spaceEvery is how often the disk is looked at.
const spaceEvery = 5 * time.Second

// DiskFree returns the bytes that this process may still write below dir, or below the nearest directory above it that
// there is.
func DiskFree(dir string) (uint64, error) {
	for {
		free, err := diskFree(dir)
		if up := filepath.Dir(dir); errors.Is(err, fs.ErrNotExist) && up != dir {
			dir = up
			continue
		}
		return free, err
	}
}

// diskFree returns the bytes that this process may still write below dir.
func diskFree(dir string) (uint64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return uint64(s.Bavail) * uint64(s.Bsize), nil
}

// A DiskState is how much room there is for a node's home.
type DiskState struct {
	Dir  string `json:"dir"`            // the home
	Free uint64 `json:"free"`           // bytes
	Word string `json:"word,omitempty"` // what is wrong, and what to do; empty: there is room
}

// How full a disk is, each worse than the one before.
const (
	spaceAmple = iota
	spaceShort // no file is taken and no random data are made
	spaceLow   // and no block is kept
	spaceNone  // and consensus ends
)

// spaceWord says how full the disk of a home is with so many bytes free, and what that means; reserve is what this node
// leaves free while it works as it should, in bytes. The word is empty while there is room.
func spaceWord(dir string, free, reserve uint64) (word string, level int) {
	mib := free >> 20
	switch {
	case free < chainReserve:
		return fmt.Sprintf("the disk of %s is FULL: %d MiB are free, and consensus ends below %d; nothing is lost: free space, and start the node again", dir, mib, uint64(chainReserve)>>20), spaceNone
	case free < blocksReserve:
		return fmt.Sprintf("the disk of %s is nearly full: %d MiB are free, so no block is kept, and below %d consensus ends: free space", dir, mib, uint64(chainReserve)>>20), spaceLow
	case free < reserve:
		return fmt.Sprintf("the disk of %s has %d MiB free: with less than %d no file is taken and no random data are made, so nothing more may be staked: free space, or add a disk", dir, mib, reserve>>20), spaceShort
	}
	return "", spaceAmple
}

// reserve is what this node leaves free while it works as it should.
func (n *Node) reserve() uint64 {
	if n.keeper != nil {
		return DiskReserve
	}
	return blocksReserve
}

// disk tells how much room there is; nil without a home, or where the system does not say.
func (n *Node) disk() *DiskState {
	if n.home == nil {
		return nil
	}
	free, err := diskFree(n.home.Dir())
	if err != nil {
		return nil
	}
	d := &DiskState{Dir: n.home.Dir(), Free: free}
	d.Word, _ = spaceWord(d.Dir, free, n.reserve())
	return d
}

// watchSpace looks at the disk of dir until ctx ends. It tells once of each change, and ends consensus by stop, with the
// reason, before the chain's databases cannot write.
func watchSpace(ctx context.Context, dir string, reserve uint64, free func(dir string) (uint64, error), stop context.CancelCauseFunc, log *slog.Logger) {
	t := time.NewTicker(spaceEvery)
	defer t.Stop()
	level := spaceAmple // of what was told
	for {
		if left, err := free(dir); err == nil {
			word, now := spaceWord(dir, left, reserve)
			switch {
			case now == spaceNone:
				log.Error("disk full", "dir", dir, "free", left, "err", word)
				stop(errors.New(word))
				return
			case now > level:
				log.Warn("disk low", "dir", dir, "free", left, "err", word)
			case now == spaceAmple && level > now:
				log.Info("the disk has room again", "dir", dir, "free", left)
			}
			level = now
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}
