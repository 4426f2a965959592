package main

import (
	"net"
	"testing"
	"time"

	"github.com/lode-node/lode/node"
)

// Two networks of one user never choose the same ports, even before anybody listens there; what somebody listens on is
// passed over.
func TestClaimPortsAreNobodyElses(t *testing.T) {
	first, claims, err := claimPorts(900, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer release(claims)
	second, more, err := claimPorts(900, 2)
	if err != nil {
		t.Fatal(err)
	}
	release(more)
	if second < first+3 && first < second+2 {
		t.Errorf("claims of 3 from %d and of 2 from %d overlap", first, second)
	}
	l, err := net.Listen("tcp", node.Defaults(second).Comet.Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	third, more, err := claimPorts(second, 1)
	if err != nil {
		t.Fatal(err)
	}
	release(more)
	if third == second {
		t.Errorf("number %d was chosen though %v listens", third, l.Addr())
	}
}

func TestEndingsAreHopelessWhenTheyComeFast(t *testing.T) {
	e, now := endings{}, time.Unix(1000, 0)
	for i := range endsAllowed {
		if e.hopeless(1, now.Add(time.Duration(i)*time.Second)) {
			t.Errorf("end %d of a node was one too many", i+1)
		}
	}
	if e.hopeless(2, now) {
		t.Error("ends of one node were counted for another")
	}
	if e.hopeless(1, now.Add(2*time.Minute)) {
		t.Error("ends of two minutes ago were counted")
	}
	for range endsAllowed - 1 {
		if e.hopeless(1, now.Add(2*time.Minute)) {
			t.Error("hopeless too early")
		}
	}
	if !e.hopeless(1, now.Add(2*time.Minute)) {
		t.Errorf("%d ends within a minute were not too many", endsAllowed+1)
	}
}
