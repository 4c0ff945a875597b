// A handler and the least of a runtime: fetches each event from the Runtime API and posts the answer.
//
// WORKLOAD says what the work is; by default it is CPU on several goroutines at once.
package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"sync"
)

const rounds = 60

// hash is one goroutine's share of the work.
func hash() [32]byte {
	block := make([]byte, 64*1024)
	var sum [32]byte
	for range rounds {
		sum = sha256.Sum256(block)
		copy(block, sum[:])
	}
	return sum
}

// parallel hashes on so many goroutines at once.
func parallel(workers int) [32]byte {
	var wait sync.WaitGroup
	sums := make([][32]byte, workers)
	for worker := range workers {
		wait.Add(1)
		go func() {
			defer wait.Done()
			sums[worker] = hash()
		}()
	}
	wait.Wait()
	return sums[0]
}

// waiting asks a server that answers late.
func waiting() error {
	answer, err := http.Get("http://" + os.Getenv("SERVER") + "/40")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}

func handle(workload string) string {
	var sum [32]byte
	switch workload {
	case "single":
		sum = parallel(1)
	case "mixed":
		if err := waiting(); err != nil {
			log.Fatal("the server does not answer: ", err)
		}
		sum = parallel(2)
	default:
		sum = parallel(4)
	}
	return fmt.Sprintf(`{"sum":"%x"}`, sum[:4])
}

func main() {
	api := "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/invocation/"
	workload := os.Getenv("WORKLOAD")
	for {
		next, err := http.Get(api + "next")
		if err != nil {
			log.Fatal("the runtime API does not answer: ", err)
		}
		io.Copy(io.Discard, next.Body)
		next.Body.Close()
		id := next.Header.Get("Lambda-Runtime-Aws-Request-Id")
		answer, err := http.Post(api+id+"/response", "application/json", bytes.NewBufferString(handle(workload)))
		if err != nil {
			log.Fatal("the runtime API takes no answer: ", err)
		}
		answer.Body.Close()
	}
}
