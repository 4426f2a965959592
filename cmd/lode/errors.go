package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/node"
)

// Exit codes of the program.
const (
	exitOK       = 0
	exitFailed   = 1
	exitUsage    = 2 // unknown command or flag, an argument that cannot be read
	exitRefused  = 3 // a rule of the chain said no
	exitNotFound = 4
	exitTimeout  = 5
	exitNoNode   = 6 // nothing answers where a node should
	exitUpgrade  = 7 // the chain goes on under rules that this build does not know
)

// A coded error knows its exit code.
type coded struct {
	code int
	err  error
}

func (e *coded) Error() string { return e.err.Error() }
func (e *coded) Unwrap() error { return e.err }

// usage is an error of the one who typed.
func usage(format string, args ...any) error {
	return &coded{exitUsage, fmt.Errorf(format, args...)}
}

// notFound is the error of something asked for by name that is not there.
func notFound(format string, args ...any) error {
	return &coded{exitNotFound, fmt.Errorf(format, args...)}
}

// exitCode returns the code for err. The first that fits counts: an error that knows, a rule of the chain, time.
func exitCode(err error) int {
	var own *coded
	var rule *chain.Error
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &own):
		return own.code
	case errors.Is(err, chain.ErrUpgrade):
		return exitUpgrade
	case errors.As(err, &rule):
		return exitOf(rule.Code)
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, node.ErrNoHome):
		return exitNotFound
	}
	return exitFailed
}

// exitOf returns the exit code for a code of the chain.
func exitOf(code uint32) int {
	switch code {
	case chain.CodeOK:
		return exitOK
	case chain.CodeAbsent:
		return exitNotFound
	case chain.CodeStopped:
		return exitFailed
	}
	return exitRefused
}
