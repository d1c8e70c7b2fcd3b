// Many calls at once by grpc-go: many ADDRESS PATH COUNT
//
// It prints how many were answered, by status. Messages are bytes, so that no generated code is needed.
package main

import (
	"context"
	"encoding/json"
	"os"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(message interface{}) ([]byte, error) { return *message.(*[]byte), nil }

func (raw) Unmarshal(data []byte, message interface{}) error {
	*message.(*[]byte) = append([]byte(nil), data...)
	return nil
}

func main() {
	address, path := os.Args[1], os.Args[2]
	count, err := strconv.Atoi(os.Args[3])
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	connection, err := grpc.DialContext(
		ctx, address, grpc.WithInsecure(), grpc.WithBlock(), grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
	if err != nil {
		panic(err)
	}
	var calls sync.WaitGroup
	codes := make(chan string, count)
	for i := 0; i < count; i++ {
		calls.Add(1)
		go func() {
			defer calls.Done()
			request, answer := []byte("\n\x01x"), []byte(nil)
			err := connection.Invoke(ctx, path, &request, &answer)
			if err == nil && string(answer) != string(request) {
				codes <- "another answer"
				return
			}
			codes <- status.Code(err).String()
		}()
	}
	calls.Wait()
	close(codes)
	counted := map[string]int{}
	for code := range codes {
		counted[code]++
	}
	if err := json.NewEncoder(os.Stdout).Encode(counted); err != nil {
		panic(err)
	}
}
