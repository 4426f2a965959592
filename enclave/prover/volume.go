package prover

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/lode-node/lode/mpow"
)

// A volume is a directory for sealed data, usually a disk of its own: below it
// replicas/ID/data and replicas/ID/index, one replica each, srd/ID, one unit of
// sealed random data each, disk, which names it, and lock.
type volume struct {
	id   id
	dir  string
	lock *os.File // nil: not ours alone
}

func (v *volume) replica(i id) string { return filepath.Join(v.dir, "replicas", i.String()) }
func (v *volume) unit(i id) string    { return filepath.Join(v.dir, "srd", i.String()) }

// A mounted is what the state knows of a volume: a disk that is not there makes
// nothing lost, because the prover does not start without it.
type mounted struct {
	ID  id
	Dir string // where it was last
}

// A DiskMissingError says that a directory with sealed data was not named.
type DiskMissingError struct {
	ID, Dir string // its name, and where it was last
	Prover  string // the prover's directory
}

func (e *DiskMissingError) Error() string {
	return fmt.Sprintf("disk %s, last at %s, is not there: mount it and name it with --disk; if it is gone for good: prover --dir %s --forget-disk %s, and what it held counts as lost",
		e.ID, e.Dir, e.Prover, e.ID)
}

// lockDir takes a directory for this process alone.
func lockDir(dir string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s is in use by another prover: %w", dir, err), lock.Close())
	}
	return lock, nil
}

// openVolume makes dir ready for sealed data, and reads its name; with no name
// in it, it gets one. It takes no lock.
func (d disk) openVolume(dir string) (*volume, error) {
	for _, sub := range []string{"replicas", "srd"} {
		if err := d.mkdir(filepath.Join(dir, sub)); err != nil {
			return nil, err
		}
	}
	v := &volume{dir: dir}
	path := filepath.Join(dir, "disk")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		v.id = newID()
		return v, d.replace(path, []byte(v.id.String()+"\n"))
	}
	if err != nil {
		return nil, err
	}
	if !v.id.parse(string(bytes.TrimSpace(text))) {
		return nil, fmt.Errorf("%s: %q is no name of a disk", path, text)
	}
	return v, nil
}

// parse reads the name of a replica, a unit or a volume.
func (i *id) parse(name string) bool {
	b, err := hex.DecodeString(name)
	if err != nil || len(b) != len(i) {
		return false
	}
	copy(i[:], b)
	return true
}

// empty reports whether nothing sealed lies in the volume.
func (v *volume) empty() (bool, error) {
	for _, sub := range []string{"replicas", "srd"} {
		entries, err := os.ReadDir(filepath.Join(v.dir, sub))
		if err != nil || len(entries) > 0 {
			return false, err
		}
	}
	return true, nil
}

// diskFree returns the bytes that the host says are free below dir, and names
// the file system. Inside an enclave both are what the host likes: they decide
// where a file is put, and never what is claimed.
func diskFree(dir string) (free, device uint64) {
	var s syscall.Statfs_t
	var at syscall.Stat_t
	if syscall.Statfs(dir, &s) != nil || syscall.Stat(dir, &at) != nil {
		return 0, 0
	}
	if s.Bavail > math.MaxInt64/uint64(max(s.Bsize, 1)) {
		return math.MaxInt64, uint64(at.Dev)
	}
	return s.Bavail * uint64(s.Bsize), uint64(at.Dev)
}

// volumes says on which disk each replica and each unit lies. It is safe for
// concurrent use.
type volumes struct {
	unit uint64 // bytes of a unit
	free func(dir string) (free, device uint64)

	mu       sync.Mutex // guards the fields below
	all      []*volume  // the prover's own directory first; grows when another prover's are taken over
	replicas map[id]*volume
	units    map[id]*volume
}

// scan finds what lies where.
func (s *volumes) scan() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replicas, s.units = map[id]*volume{}, map[id]*volume{}
	for _, v := range s.all {
		for sub, m := range map[string]map[id]*volume{"replicas": s.replicas, "srd": s.units} {
			entries, err := os.ReadDir(filepath.Join(v.dir, sub))
			if err != nil {
				return err
			}
			for _, e := range entries {
				var i id
				if !i.parse(e.Name()) {
					continue
				}
				// A crash in a move leaves two; the longer one is the one in use.
				if other, twice := m[i]; !twice || length(v.replica(i)) > length(other.replica(i)) {
					m[i] = v
				}
			}
		}
	}
	return nil
}

// length returns the bytes of a replica's data.
func length(replica string) int64 {
	info, err := os.Stat(filepath.Join(replica, "data"))
	if err != nil {
		return -1
	}
	return info.Size()
}

// isHome reports whether v is where a replica or unit of that name is used.
func (s *volumes) isHome(name string, v *volume) bool {
	var i id
	s.mu.Lock()
	defer s.mu.Unlock()
	return i.parse(name) && (s.replicas[i] == v || s.units[i] == v)
}

// ofReplica returns the volume of a replica: the one where it lies, or else the
// one with most room for it, in which it will be from now on. Random data is
// room, since it gives way (spec §3.23).
func (s *volumes) ofReplica(i id) *volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.replicas[i]; ok {
		return v
	}
	v := s.byRoom(true)[0]
	s.replicas[i] = v
	return v
}

// replica returns the directory of a replica that is there; one that is not
// would be in the first volume.
func (s *volumes) replica(i id) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.replicas[i]; ok {
		return v.replica(i)
	}
	return s.all[0].replica(i)
}

// unitPath is the same for a unit.
func (s *volumes) unitPath(i id) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.units[i]; ok {
		return v.unit(i)
	}
	return s.all[0].unit(i)
}

// forUnit lists the volumes in the order in which a unit tries them: most space
// first.
func (s *volumes) forUnit() []*volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byRoom(false)
}

// byRoom sorts the volumes by what is free, with or without what units would give
// back; where the host says the same of all, by how little lies there. The caller
// holds mu.
func (s *volumes) byRoom(units bool) []*volume {
	type room struct {
		v    *volume
		free uint64
		held int
	}
	rooms := make([]room, len(s.all))
	for n, v := range s.all {
		rooms[n].v = v
		rooms[n].free, _ = s.free(v.dir)
		for _, at := range s.units {
			if at == v {
				rooms[n].held++
				if units {
					rooms[n].free += s.unit
				}
			}
		}
		for _, at := range s.replicas {
			if at == v {
				rooms[n].held++
			}
		}
	}
	slices.SortStableFunc(rooms, func(a, b room) int {
		return cmp.Or(-cmp.Compare(a.free, b.free), cmp.Compare(a.held, b.held))
	})
	out := make([]*volume, len(rooms))
	for n, r := range rooms {
		out[n] = r.v
	}
	return out
}

// put notes where a unit was made.
func (s *volumes) put(i id, v *volume) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.units[i] = v
}

// gone forgets a replica or a unit.
func (s *volumes) gone(i id) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.replicas, i)
	delete(s.units, i)
}

// unitsOn lists the units of a volume in order.
func (s *volumes) unitsOn(v *volume) []id {
	s.mu.Lock()
	defer s.mu.Unlock()
	on := map[id]bool{}
	for i, at := range s.units {
		if at == v {
			on[i] = true
		}
	}
	return sorted(on)
}

// add takes volumes in, and looks what lies in them.
func (s *volumes) add(more []*volume) error {
	s.mu.Lock()
	s.all = append(s.all, more...)
	s.mu.Unlock()
	return s.scan()
}

// drop lets volumes go that are not locked.
func (s *volumes) drop() error {
	s.mu.Lock()
	s.all = slices.DeleteFunc(slices.Clone(s.all), func(v *volume) bool { return v.lock == nil })
	s.mu.Unlock()
	return s.scan()
}

// own lists the volumes that are locked.
func (s *volumes) own() []mounted {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []mounted
	for _, v := range s.all {
		if v.lock != nil {
			out = append(out, mounted{v.id, v.dir})
		}
	}
	return out
}

// info lists the disks for people.
func (s *volumes) info() []mpow.ProverDisk {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []mpow.ProverDisk
	for _, v := range s.all {
		d := mpow.ProverDisk{ID: v.id.String(), Dir: v.dir}
		d.Free, d.Device = s.free(v.dir)
		for _, at := range s.replicas {
			if at == v {
				d.Files++
			}
		}
		for _, at := range s.units {
			if at == v {
				d.Units++
			}
		}
		out = append(out, d)
	}
	return out
}

// close gives the locks up.
func (s *volumes) close() error {
	var err error
	for _, v := range s.all {
		if v.lock != nil {
			err = errors.Join(err, v.lock.Close())
		}
	}
	return err
}
