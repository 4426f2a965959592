package bench

import "errors"

func newTUN() (Shaper, error) { return nil, errors.New("bench: tun: not implemented") }
