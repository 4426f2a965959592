//go:build !ego

package prover

// Here returns what this process can ask of the hardware. A program built without
// the tag ego is in no enclave, whatever its surroundings say.
func Here() Machine { return Machine{} }
