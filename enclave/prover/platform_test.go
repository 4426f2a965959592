package prover_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lode-node/lode/enclave/prover"
	"github.com/lode-node/lode/mpow"
)

// A chip is a machine with SGX as EGo shows it, made of HMACs.
type chip struct {
	secret string
	build  byte // of the program in it
	debug  bool // of this enclave
	svn    [16]byte
	seed   byte // of the next key id
	zero   bool // keys come as EGo gives them without hardware
}

func (c *chip) measurement() []byte { return bytes.Repeat([]byte{c.build}, 32) }

// request is one for a key of this program that debug enclaves do not share.
func (c *chip) request() []byte {
	r := make([]byte, 512)
	binary.LittleEndian.PutUint16(r, 4)
	binary.LittleEndian.PutUint16(r[2:], 1)
	copy(r[8:24], c.svn[:])
	binary.LittleEndian.PutUint64(r[24:], 0xff0000000000000b)
	c.seed++
	copy(r[40:72], bytes.Repeat([]byte{c.seed}, 32))
	return r
}

// key derives as the hardware does: from what the request says is to count.
func (c *chip) key(request []byte) ([]byte, error) {
	if c.zero {
		return make([]byte, 16), nil
	}
	if bytes.Compare(request[8:24], c.svn[:]) > 0 {
		return nil, errors.New("OE_INVALID_CPUSVN")
	}
	h := hmac.New(sha256.New, []byte(c.secret))
	h.Write(request)
	if request[2] == 1 {
		h.Write(c.measurement())
	}
	if request[24]&2 != 0 && c.debug {
		h.Write([]byte("debug"))
	}
	return h.Sum(nil)[:16], nil
}

func (c *chip) machine() prover.Machine {
	return prover.Machine{
		InEnclave: true,
		Self: func() (prover.SelfReport, error) {
			return prover.SelfReport{Measurement: c.measurement(), Debug: c.debug}, nil
		},
		NewKey: func() ([]byte, []byte, error) {
			r := c.request()
			k, err := c.key(r)
			return k, r, err
		},
		Key: c.key,
		Quote: func(data []byte) ([]byte, error) {
			quote := append([]byte("quote of "), data...)
			e := binary.LittleEndian.AppendUint32(nil, 1)
			e = binary.LittleEndian.AppendUint32(e, 2)
			e = binary.LittleEndian.AppendUint64(e, uint64(len(quote)))
			return append(e, quote...), nil
		},
	}
}

var errUnsupported = errors.New("OE_UNSUPPORTED")

// outside is EGo in a plain process: the loader says nothing, reports fail, and
// sealing works under zeros.
func outside() prover.Machine {
	return prover.Machine{
		Self:   func() (prover.SelfReport, error) { return prover.SelfReport{}, errUnsupported },
		NewKey: func() ([]byte, []byte, error) { return make([]byte, 16), make([]byte, 512), nil },
		Key:    func([]byte) ([]byte, error) { return make([]byte, 16), nil },
		Quote:  func([]byte) ([]byte, error) { return nil, errUnsupported },
	}
}

// egoSim is EGo's own simulation: the loader says that it is an enclave.
func egoSim() prover.Machine {
	m := outside()
	m.InEnclave = true
	return m
}

// What a process is in is told before anything is believed, and nothing but SGX
// goes without --simulate (EN-2).
func TestClassify(t *testing.T) {
	good, debug := &chip{secret: "a", build: 7}, &chip{secret: "a", build: 7, debug: true}
	zero := good.machine()
	zero.Self = func() (prover.SelfReport, error) { return prover.SelfReport{}, nil }
	blank := good.machine()
	blank.Self = func() (prover.SelfReport, error) { return prover.SelfReport{Measurement: make([]byte, 32)}, nil }
	for _, row := range []struct {
		name     string
		m        prover.Machine
		mode     prover.Mode // empty: refused, whatever is asked
		without  string      // what refuses it without --simulate; empty: nothing
		kindWith mpow.Kind   // with --simulate
	}{
		{"hardware", good.machine(), prover.ModeSGX, "", mpow.KindDCAP}, // never stood in for
		{"a debug enclave", debug.machine(), prover.ModeSGXDebug, "debug enclave", mpow.KindSimulated},
		{"EGo simulating", egoSim(), prover.ModeEGoSim, "EGo simulates", mpow.KindSimulated},
		{"EGo outside of an enclave", outside(), prover.ModeSim, "no enclave", mpow.KindSimulated},
		{"built without EGo", prover.Machine{}, prover.ModeSim, "no enclave", mpow.KindSimulated},
		{"no error and a report of nothing", zero, "", "", 0},
		{"no error and a measurement of zeros", blank, "", "", 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			mode, _, err := prover.Classify(row.m)
			if mode != row.mode || (err == nil) != (row.mode != "") {
				t.Fatalf("mode %q, %v; want %q", mode, err, row.mode)
			}
			_, err = prover.Choose(row.m, t.TempDir(), false)
			if (err == nil) != (row.mode == prover.ModeSGX) || row.without != "" && (!strings.Contains(err.Error(), row.without) || !strings.Contains(err.Error(), "--simulate")) {
				t.Errorf("without --simulate: %v", err)
			}
			p, err := prover.Choose(row.m, t.TempDir(), true)
			if row.mode == "" {
				if err == nil {
					t.Error("a report of nothing starts with --simulate")
				}
				return
			}
			must(t, err)
			if p.Kind() != row.kindWith || p.Mode() != row.mode || (p.Kind() == mpow.KindSimulated) != strings.Contains(p.Name(), "simulated") {
				t.Errorf("with --simulate: kind %v, mode %s, %q", p.Kind(), p.Mode(), p.Name())
			}
		})
	}
}

// EGo's keys of zeros seal nothing, though everything else looks like hardware.
func TestZeroHardwareKeyIsRefused(t *testing.T) {
	c := chip{secret: "a", build: 7, zero: true}
	dir := t.TempDir()
	p, err := prover.Choose(c.machine(), dir, false)
	must(t, err)
	if _, err := prover.New(prover.Config{Dir: dir, Platform: p, Params: params(t)}); err == nil || !strings.Contains(err.Error(), "zero") {
		t.Fatalf("got %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "state-*")); err != nil || len(left) > 0 {
		t.Fatalf("it sealed %v, %v", left, err)
	}
}

// The sealing key comes back after a restart and after new microcode, not on
// another machine or in another build; and a host that alters the request is
// refused, because it would have the key made for the signer's other programs, or
// shared with a debug enclave of the same program (spec §3.21).
func TestHardwareKeyIsThePrograms(t *testing.T) {
	dir := t.TempDir()
	key := func(c chip) ([]byte, error) {
		p, err := prover.Choose(c.machine(), dir, false)
		if err != nil {
			return nil, err
		}
		return p.SealKey()
	}
	c := chip{secret: "a", build: 7, svn: [16]byte{5}}
	first, err := key(c)
	must(t, err)
	c.svn[0] = 6
	again, err := key(c)
	if err != nil || !bytes.Equal(first, again) || len(first) != 32 {
		t.Fatalf("after new microcode: %x, %v; want %x", again, err, first)
	}
	c.svn[0] = 4
	if _, err := key(c); err == nil {
		t.Error("older microcode gets the key")
	}
	c.svn[0] = 6
	for what, other := range map[string]chip{"another machine": {secret: "b", build: 7, svn: c.svn}, "another build": {secret: "a", build: 8, svn: c.svn}} {
		if k, err := key(other); err == nil && bytes.Equal(k, first) {
			t.Errorf("%s gets the key", what)
		}
	}
	path := filepath.Join(dir, "seal.request")
	good, err := os.ReadFile(path)
	must(t, err)
	for at, what := range map[int]string{2: "policy", 24: "attribute mask", 72: "misc mask", 512 + 2: "policy of the second", 0: "key name", 500: "reserved"} {
		bad := bytes.Clone(good)
		bad[at] ^= 2
		must(t, os.WriteFile(path, bad, 0o600))
		if _, err := key(c); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s altered: %v", what, err)
		}
	}
	must(t, os.WriteFile(path, good[:600], 0o600))
	if _, err := key(c); err == nil {
		t.Error("a cut request is taken")
	}
	must(t, os.WriteFile(filepath.Join(dir, "state-1"), nil, 0o600))
	must(t, os.Remove(path))
	if _, err := key(c); err == nil || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("without its request beside a state: %v", err)
	}
}

// On what looks like hardware the prover seals, restarts and attests with a bare
// quote; the chain's kind is sgx.
func TestHardwareProver(t *testing.T) {
	c := chip{secret: "a", build: 7}
	dir, blocks := t.TempDir(), tree(t, 1, 3, 700)
	for n := range 2 {
		platform, err := prover.Choose(c.machine(), dir, true)
		must(t, err)
		p := open(t, prover.Config{Dir: dir, Platform: platform, Params: params(t)})
		if n == 0 {
			store(t, p, blocks)
		}
		if data, err := p.Open(t.Context(), blocks[2].cid); err != nil || !bytes.Equal(data, blocks[2].data) {
			t.Fatalf("start %d: %v", n, err)
		}
		r, err := p.Attest(t.Context(), "lode-test", account, 9, [32]byte{9})
		must(t, err)
		data := mpow.ReportData("lode-test", mpow.KindDCAP, r.Key, account, 9, [32]byte{9}, r.StateRoot)
		if r.Kind != mpow.KindDCAP || r.Measurement != mpow.Hash(c.measurement()) || string(r.Evidence) != fmt.Sprintf("quote of %s", data) {
			t.Fatalf("registration %+v", r)
		}
		must(t, p.Close())
	}
	bad := c.machine()
	bad.Quote = func([]byte) ([]byte, error) { return []byte("no evidence at all"), nil }
	platform, err := prover.Choose(bad, dir, false)
	must(t, err)
	if _, err := platform.Quote(nil, [64]byte{}); err == nil {
		t.Error("evidence of another form is taken for a quote")
	}
}
