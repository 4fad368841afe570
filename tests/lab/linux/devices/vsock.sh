# Sockets between host and guest, worked by socat. Read by guest_devices_init.
# modules: net/vmw_vsock/vsock net/vmw_vsock/vmw_vsock_virtio_transport_common net/vmw_vsock/vmw_vsock_virtio_transport
# programs: socat
socat -u VSOCK-LISTEN:1234 CREATE:/tmp/bulk 2> /tmp/listen &
tell listening
wait $!
same received "$(wc -c < /tmp/bulk)" 67108864
tell got "$(md5sum < /tmp/bulk | cut -d ' ' -f 1)"

await # for the host to listen
work sends_back socat -u OPEN:/tmp/bulk VSOCK-CONNECT:2:52
rm /tmp/bulk
socat -u OPEN:/dev/null VSOCK-CONNECT:2:99 2> /tmp/refused && why="it was connected" || why=
check nobody_listens "$why"
echo question | socat -t 60 - VSOCK-CONNECT:2:53 > /tmp/answer 2> /tmp/half
same half_close "$(cat /tmp/answer)" "answer to question"

socat VSOCK-LISTEN:7,fork,backlog=1024 PIPE 2> /tmp/echo &
tell echoing
await
saw echo_complaints "$(wc -l < /tmp/echo)"
killall socat
