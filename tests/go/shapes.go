// Uploads, duplex and one-way calls by grpc-go: shapes ADDRESS SERVICE
//
// It prints what became of each, as JSON. Messages are bytes, so that no generated code is needed: of what is sent, field
// 2 is a number; of what an upload answers, field 1 is one.
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(message interface{}) ([]byte, error) { return *message.(*[]byte), nil }

func (raw) Unmarshal(data []byte, message interface{}) error {
	*message.(*[]byte) = append([]byte(nil), data...)
	return nil
}

func number(value byte) []byte { return []byte{0x10, value} }

var names = map[codes.Code]string{codes.Canceled: "CANCELLED", codes.InvalidArgument: "INVALID_ARGUMENT"}

// told is the answer, or the status by its name.
func told(answer []byte, err error) string {
	if err == nil {
		return hex.EncodeToString(answer)
	}
	if name, known := names[status.Code(err)]; known {
		return name
	}
	return err.Error()
}

func begin(ctx context.Context, connection *grpc.ClientConn, path string, back bool) grpc.ClientStream {
	stream, err := connection.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: back}, path)
	if err != nil {
		panic(err)
	}
	return stream
}

func send(stream grpc.ClientStream, items ...[]byte) {
	for i := range items {
		if err := stream.SendMsg(&items[i]); err != nil && err != io.EOF {
			panic(err)
		}
	}
}

// answered is what an upload is answered.
func answered(stream grpc.ClientStream) string {
	var answer []byte
	err := stream.RecvMsg(&answer)
	return told(answer, err)
}

// converse sends one item for each that comes back, three in all.
func converse(stream grpc.ClientStream) []string {
	back := []string{}
	send(stream, number(1))
	for {
		var item []byte
		err := stream.RecvMsg(&item)
		if err == io.EOF {
			return back
		}
		back = append(back, told(item, err))
		if err != nil {
			return back
		}
		if len(back) < 3 {
			send(stream, number(byte(len(back)+1)))
		} else if err := stream.CloseSend(); err != nil {
			panic(err)
		}
	}
}

func main() {
	address, service := os.Args[1], "/"+os.Args[2]+"/"
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	connection, err := grpc.DialContext(
		ctx, address, grpc.WithInsecure(), grpc.WithBlock(), grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
	if err != nil {
		panic(err)
	}
	upload := func(method string, end bool, items ...[]byte) string {
		stream := begin(ctx, connection, service+method, false)
		send(stream, items...)
		if end {
			if err := stream.CloseSend(); err != nil {
				panic(err)
			}
		}
		return answered(stream)
	}
	found := map[string]interface{}{}
	for _, method := range strings.Fields("AddUp Iterate") {
		found[method+" whole"] = upload(method, true, number(1), number(2), number(3), number(4), number(5))
		found[method+" none"] = upload(method, true)
		found[method+" early"] = upload(method, false, []byte{0x10, 0xe8, 0x07})
		soon, stop := context.WithCancel(ctx)
		stream := begin(soon, connection, service+method, false)
		send(stream, number(7))
		time.AfterFunc(200*time.Millisecond, stop)
		found[method+" cancelled"] = answered(stream)
	}
	found["refused"] = upload("AddUp", false, []byte{0x10, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	for _, method := range strings.Fields("EchoSink EchoAll") {
		found[method] = converse(begin(ctx, connection, service+method, true))
	}
	request, nothing := number(9), []byte(nil)
	err = connection.Invoke(ctx, service+"Note", &request, &nothing)
	found["posted"] = told(nothing, err)
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		panic(err)
	}
}
