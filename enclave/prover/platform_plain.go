//go:build !ego

package prover

import "errors"

// Hardware returns the SGX platform this process runs on. A program built
// without the tag ego has none.
func Hardware() (Platform, error) {
	return nil, errors.New("this program was built without SGX (tag ego); run it with --simulate on a devnet, or build it with ego-go")
}
