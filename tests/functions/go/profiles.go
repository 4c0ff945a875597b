package main

import (
	"fmt"
	"os"
	"runtime/pprof"
	"time"
)

// folder is where the extension takes profiles from, see docs/profiles.md.
const folder = "/tmp/tailor"

// profiled writes a CPU profile of work. The name of the file is unique, so that a later profile does not replace it.
func profiled(name string, work func()) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	name = fmt.Sprintf("%s-%d.pprof", name, time.Now().UnixNano())
	// A name that begins with a dot is not complete. The rename makes it complete at once.
	file, err := os.Create(folder + "/." + name)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := pprof.StartCPUProfile(file); err != nil {
		return err
	}
	work()
	pprof.StopCPUProfile()
	return os.Rename(file.Name(), folder+"/"+name)
}
