/*
 * docs.h: what the types in C say of themselves in Python.  The tests run the examples, with echo and talk() at hand.
 */
#ifndef JANUS_TCP_DOCS_H
#define JANUS_TCP_DOCS_H

/* clang-format off */
#define DOC_CONNECTION \
    "One TCP connection.\n" \
    "\n" \
    "Iterate over it with ``async for`` to receive.  A handler gets it as its argument, ``connect()`` returns one.\n" \
    "All of it belongs to the system thread whose loop runs it: another one gets a RuntimeError.  One task may receive on\n" \
    "it and one may send.\n" \
    "\n" \
    ">>> async def echo(conn):\n" \
    "...     async for data in conn:\n" \
    "...         await conn.send(data)\n" \
    ">>> async def client(conn):\n" \
    "...     await conn.send(b\"hello\")\n" \
    "...     return await conn.recv()\n" \
    ">>> talk(echo, client)\n" \
    "b'hello'"

#define DOC_RECV \
    "recv(n=65536)\n" \
    "--\n" \
    "\n" \
    "Wait for data and return 1 to n bytes of it; b\"\" after the peer's FIN.\n" \
    "\n" \
    "Raises ConnectionResetError, TimeoutError (deadline, or a peer that does not answer), ConnectionAbortedError\n" \
    "after close() on this side.\n" \
    "\n" \
    ">>> async def client(conn):\n" \
    "...     await conn.send(b\"abcdef\")\n" \
    "...     return [await conn.recv(4), await conn.recv(4)]\n" \
    ">>> talk(echo, client)\n" \
    "[b'abcd', b'ef']"

#define DOC_RECV_VIEW \
    "recv_view()\n" \
    "--\n" \
    "\n" \
    "Wait for data and return a read-only memoryview of one packet's: the packet itself, nothing is copied.\n" \
    "\n" \
    "It is empty after the peer's FIN.  It is valid until the next receive on this connection or its close, and\n" \
    "released then: using it afterwards raises ValueError.  A slice of it that is still held then makes the next\n" \
    "receive raise BufferError.  Raises what recv() raises.\n" \
    "\n" \
    ">>> async def client(conn):\n" \
    "...     await conn.send(b\"abc\")\n" \
    "...     view = await conn.recv_view()\n" \
    "...     return sum(view)\n" \
    ">>> talk(echo, client)\n" \
    "294"

#define DOC_RECV_INTO \
    "recv_into(buffer)\n" \
    "--\n" \
    "\n" \
    "Wait for data, fill buffer (bytearray, writable memoryview, ...) from its start; return how many bytes.\n" \
    "\n" \
    "0 is the peer's FIN.  Raises what recv() raises, ValueError for an empty buffer.\n" \
    "\n" \
    ">>> async def client(conn):\n" \
    "...     await conn.send(b\"abc\")\n" \
    "...     room = bytearray(10)\n" \
    "...     n = await conn.recv_into(room)\n" \
    "...     return bytes(room[:n])\n" \
    ">>> talk(echo, client)\n" \
    "b'abc'"

#define DOC_RECV_EXACTLY \
    "recv_exactly(n)\n" \
    "--\n" \
    "\n" \
    "Wait for n bytes and return them.\n" \
    "\n" \
    "Raises IncompleteReadError(partial, n) when the stream ends before, else what recv() raises.  When it is\n" \
    "cancelled or its deadline passes, what had come is lost.\n" \
    "\n" \
    ">>> async def client(conn):\n" \
    "...     await conn.send(b\"12345\")\n" \
    "...     return await conn.recv_exactly(5)\n" \
    ">>> talk(echo, client)\n" \
    "b'12345'"

#define DOC_RECV_UNTIL \
    "recv_until(delimiter, limit=65536)\n" \
    "--\n" \
    "\n" \
    "Wait for delimiter and return all up to and with it.\n" \
    "\n" \
    "Raises ValueError when it is not within limit bytes (at most 131072), IncompleteReadError when the stream ends\n" \
    "before; in the first case the data stays unread.  Else what recv() raises.\n" \
    "\n" \
    ">>> async def client(conn):\n" \
    "...     await conn.send(b\"GET / HTTP/1.1\\r\\n\\r\\nrest\")\n" \
    "...     return await conn.recv_until(b\"\\r\\n\\r\\n\")\n" \
    ">>> talk(echo, client)\n" \
    "b'GET / HTTP/1.1\\r\\n\\r\\n'"

#define DOC_SEND \
    "send(data)\n" \
    "--\n" \
    "\n" \
    "Send bytes, bytearray or memoryview.  What there is room for is taken at the call; await the rest.\n" \
    "\n" \
    "The await ends when all has found room in the send buffer, not when it has arrived.  Raises\n" \
    "ConnectionResetError, BrokenPipeError after shutdown() or close(), TimeoutError, RuntimeError while an earlier\n" \
    "send is not finished.\n" \
    "\n" \
    ">>> async def client(conn):\n" \
    "...     await conn.send(b\"x\" * 1_000_000)\n" \
    "...     conn.shutdown()\n" \
    "...     return sum([len(data) async for data in conn])\n" \
    ">>> async def patient(conn):\n" \
    "...     await conn.send(await conn.recv_exactly(1_000_000))\n" \
    ">>> talk(patient, client)\n" \
    "1000000"

#define DOC_SEND_URGENT \
    "send_urgent(data)\n" \
    "--\n" \
    "\n" \
    "send(), and data ends with urgent data (RFC 9293 3.8.5).\n" \
    "\n" \
    "The peer is told at once that it is on its way, even if its window is closed, and where it ends.  A socket gives the\n" \
    "last byte out of band (MSG_OOB), unless it has SO_OOBINLINE; on Janus all of it is received in line, see info().\n" \
    "Raises what send() raises.\n" \
    "\n" \
    ">>> async def client(conn):\n" \
    "...     await conn.send_urgent(b\"stop\")\n" \
    "...     return await conn.recv()\n" \
    ">>> talk(echo, client)\n" \
    "b'stop'"

#define DOC_TRY_SEND \
    "try_send(data)\n" \
    "--\n" \
    "\n" \
    "Send what there is room for at once and never wait; return how many bytes that was, 0 when there is no room.\n" \
    "\n" \
    "Raises what send() raises.  See writable().\n" \
    "\n" \
    ">>> async def client(conn):\n" \
    "...     sent = conn.try_send(b\"abc\")\n" \
    "...     return sent, await conn.recv()\n" \
    ">>> talk(echo, client)\n" \
    "(3, b'abc')"

#define DOC_WRITABLE \
    "writable()\n" \
    "--\n" \
    "\n" \
    "Wait until try_send() would take at least a byte.  Raises what send() raises.\n" \
    "\n" \
    ">>> async def client(conn):\n" \
    "...     data = memoryview(b\"x\" * 1_000_000)\n" \
    "...     while data:\n" \
    "...         await conn.writable()\n" \
    "...         data = data[conn.try_send(data):]\n" \
    "...     return len(await conn.recv_exactly(2))\n" \
    ">>> async def count(conn):\n" \
    "...     await conn.recv_exactly(1_000_000)\n" \
    "...     await conn.send(b\"ok\")\n" \
    ">>> talk(count, client)\n" \
    "2"

#define DOC_SENDFILE \
    "sendfile(file, offset=0, count=None)\n" \
    "--\n" \
    "\n" \
    "Send count bytes of a file from offset, or up to its end; return how many there were.\n" \
    "\n" \
    "file is a descriptor or has fileno(); its position stays as it is.  Reading a file that is not in memory holds\n" \
    "up the loop.  Raises OSError of the file, ValueError for negative numbers, else what send() raises.\n" \
    "\n" \
    ">>> import tempfile\n" \
    ">>> async def client(conn):\n" \
    "...     with tempfile.TemporaryFile() as file:\n" \
    "...         file.write(b\"0123456789\")\n" \
    "...         file.flush()\n" \
    "...         sent = await conn.sendfile(file, offset=2, count=5)\n" \
    "...     return sent, await conn.recv_exactly(sent)\n" \
    ">>> talk(echo, client)\n" \
    "(5, b'23456')"

#define DOC_CLOSE \
    "close()\n" \
    "--\n" \
    "\n" \
    "Give the connection back: what was sent still arrives, then FIN.  Harmless when it is closed.\n" \
    "\n" \
    "With received data unread it is a reset (RFC 9293 3.6.1).  RuntimeError in another thread.\n" \
    "\n" \
    ">>> async def client(conn):\n" \
    "...     conn.close()\n" \
    "...     return conn.closed\n" \
    ">>> talk(echo, client)\n" \
    "True"

#define DOC_ABORT \
    "abort()\n" \
    "--\n" \
    "\n" \
    "Give the connection back and reset it (RST); what was not yet delivered is lost.  Harmless when it is closed.\n" \
    "RuntimeError in another thread.\n" \
    "\n" \
    ">>> async def client(conn):\n" \
    "...     conn.abort()\n" \
    "...     return conn.closed\n" \
    ">>> talk(echo, client)\n" \
    "True"

#define DOC_SHUTDOWN \
    "shutdown()\n" \
    "--\n" \
    "\n" \
    "Send FIN after what was sent; receiving goes on.  Raises BrokenPipeError after close().\n" \
    "\n" \
    ">>> async def client(conn):\n" \
    "...     conn.shutdown()\n" \
    "...     return await conn.recv()\n" \
    ">>> talk(echo, client)\n" \
    "b''"

#define DOC_SET_DEADLINE \
    "set_deadline(seconds)\n" \
    "--\n" \
    "\n" \
    "From seconds from now on receiving and sending raise TimeoutError, also what waits then; None: never.\n" \
    "\n" \
    "Raises ValueError for a negative number.\n" \
    "\n" \
    ">>> async def client(conn):\n" \
    "...     conn.set_deadline(1.5)\n" \
    "...     try:\n" \
    "...         await conn.recv()\n" \
    "...     except TimeoutError as error:\n" \
    "...         return str(error)\n" \
    ">>> talk(echo, client)\n" \
    "\"the connection's deadline has passed\""

#define DOC_SET_NODELAY \
    "set_nodelay(on)\n" \
    "--\n" \
    "\n" \
    "Send small segments at once, without Nagle's algorithm (RFC 9293 3.7.4); off at first.\n" \
    "Has no effect after close(), and never raises in the loop's thread.\n" \
    "\n" \
    ">>> async def client(conn):\n" \
    "...     conn.set_nodelay(True)\n" \
    "...     await conn.send(b\"now\")\n" \
    "...     return await conn.recv()\n" \
    ">>> talk(echo, client)\n" \
    "b'now'"

#define DOC_SET_KEEPALIVE \
    "set_keepalive(seconds)\n" \
    "--\n" \
    "\n" \
    "Probe a peer that was silent for so long (RFC 9293 3.8.4), in whole seconds; None or 0: never, as at first.\n" \
    "\n" \
    "Nine probes without an answer, 75 s apart, end the connection with TimeoutError.  Raises ValueError beyond\n" \
    "4,000,000 seconds.\n" \
    "\n" \
    ">>> async def client(conn):\n" \
    "...     conn.set_keepalive(60)\n" \
    "...     conn.close()\n" \
    ">>> talk(echo, client)"

#define DOC_SET_USER_TIMEOUT \
    "set_user_timeout(seconds)\n" \
    "--\n" \
    "\n" \
    "End the connection with TimeoutError when data is not acknowledged for so long (RFC 9293 3.8.3, R2); None or 0:\n" \
    "after 13 transmissions, as at first.  A window that stays closed counts too.\n" \
    "\n" \
    "Raises ValueError beyond 2,000,000 seconds.\n" \
    "\n" \
    ">>> async def client(conn):\n" \
    "...     conn.set_user_timeout(30)\n" \
    "...     conn.close()\n" \
    ">>> talk(echo, client)"

#define DOC_SET_DSCP \
    "set_dscp(value)\n" \
    "--\n" \
    "\n" \
    "The Differentiated Services code point of what is sent from now on (RFC 2474), 0 to 63; 0 at first, or as listen()\n" \
    "has it.  46 is EF, 8 is what may wait (CS1).\n" \
    "\n" \
    "Raises ValueError beyond its bounds.\n" \
    "\n" \
    ">>> async def client(conn):\n" \
    "...     conn.set_dscp(46)\n" \
    "...     conn.close()\n" \
    ">>> talk(echo, client)"

#define DOC_SET_TTL \
    "set_ttl(value)\n" \
    "--\n" \
    "\n" \
    "The TTL, or IPv6's hop limit, of what is sent from now on, 1 to 255; 64 at first, or as listen() has it.\n" \
    "\n" \
    "Raises ValueError beyond its bounds.\n" \
    "\n" \
    ">>> async def client(conn):\n" \
    "...     conn.set_ttl(255)\n" \
    "...     conn.close()\n" \
    ">>> talk(echo, client)"

#define DOC_INFO \
    "info()\n" \
    "--\n" \
    "\n" \
    "What TCP knows of the path, a dict: srtt_us, rttvar_us, rto_us, cwnd_bytes, ssthresh_bytes, smss (bytes),\n" \
    "flight_bytes (sent and not acknowledged), unsent_bytes, unread_bytes, send_window_bytes, recv_window_bytes,\n" \
    "timeouts (retransmission timeouts in a row), retransmits (segments sent again so far, of which a connection that is\n" \
    "idle remembers at most 4,095), sack, timestamps, ecn, dscp, ttl, state; stalled: three transmissions in a row\n" \
    "got no answer (R1 of RFC 9293 3.8.3; TimeoutError comes after ten more, see set_user_timeout()), stalled_ms: for how\n" \
    "long nothing has got through, 0 before the first timeout; urgent_bytes: unread bytes up to the end of the peer's\n" \
    "urgent data, some of which may not have come yet, 0: there is none.  Urgent data is received in line.\n" \
    "\n" \
    "Raises OSError ENOTCONN after close().\n" \
    "\n" \
    ">>> async def client(conn):\n" \
    "...     await conn.send(b\"x\")\n" \
    "...     await conn.recv()\n" \
    "...     info = conn.info()\n" \
    "...     return info[\"smss\"], info[\"flight_bytes\"], info[\"sack\"], info[\"stalled\"], info[\"urgent_bytes\"]\n" \
    ">>> talk(echo, client)\n" \
    "(1448, 0, True, False, 0)"

#define DOC_USER_DATA \
    "The handler's own: any object, None at first.\n" \
    "\n" \
    "It is dropped when the connection is closed and its handler has ended, so it may refer to the connection.\n" \
    "Never raises.\n" \
    "\n" \
    ">>> async def client(conn):\n" \
    "...     conn.user_data = {\"name\": \"Ann\"}\n" \
    "...     return conn.user_data[\"name\"]\n" \
    ">>> talk(echo, client)\n" \
    "'Ann'"

#define DOC_PEERNAME \
    "(host, port) of the peer; OSError ENOTCONN after close().\n" \
    "\n" \
    ">>> async def client(conn):\n" \
    "...     return conn.peername\n" \
    ">>> talk(echo, client)\n" \
    "('192.0.2.1', 7)"

#define DOC_SOCKNAME \
    "(host, port) of this side; OSError ENOTCONN after close().\n" \
    "\n" \
    ">>> async def client(conn):\n" \
    "...     return conn.sockname[0]\n" \
    ">>> talk(echo, client)\n" \
    "'192.0.2.2'"

#define DOC_CLOSED \
    "True after close() or abort() on this side.  Never raises.\n" \
    "\n" \
    ">>> async def client(conn):\n" \
    "...     return conn.closed\n" \
    ">>> talk(echo, client)\n" \
    "False"

#define DOC_SLEEP \
    "sleep(seconds)\n" \
    "--\n" \
    "\n" \
    "Wait so many seconds, in the loop's time; 0 lets others run.  Raises ValueError for a negative number.\n" \
    "\n" \
    ">>> async def client(conn):\n" \
    "...     await janus_tcp.sleep(0.25)\n" \
    "...     return \"later\"\n" \
    ">>> talk(echo, client)\n" \
    "'later'"

#define DOC_TASK \
    "A coroutine that runs beside others; await it for its result, once and in one place.  Awaiting raises what it raised.\n" \
    "\n" \
    ">>> async def client(conn):\n" \
    "...     task = janus_tcp.spawn(janus_tcp.connect(conn.peername[0], 9))\n" \
    "...     try:\n" \
    "...         await task\n" \
    "...     except ConnectionRefusedError:\n" \
    "...         return task.done(), type(task.exception()).__name__\n" \
    ">>> talk(echo, client)\n" \
    "(True, 'ConnectionRefusedError')"

#define DOC_TASK_CANCEL \
    "cancel()\n" \
    "--\n" \
    "\n" \
    "Raise CancelledError in the task where it waits, or at its next await.\n" \
    "\n" \
    ">>> async def client(conn):\n" \
    "...     task = janus_tcp.spawn(wait(conn))\n" \
    "...     task.cancel()\n" \
    "...     try:\n" \
    "...         await task\n" \
    "...     except janus_tcp.CancelledError:\n" \
    "...         return \"cancelled\"\n" \
    ">>> async def wait(conn):\n" \
    "...     await conn.recv()\n" \
    ">>> talk(echo, client)\n" \
    "'cancelled'"

#define DOC_CANCELLED_ERROR \
    "The task was cancelled; clean up and let it pass.\n" \
    "\n" \
    ">>> async def wait(conn):\n" \
    "...     try:\n" \
    "...         await conn.recv()\n" \
    "...     except janus_tcp.CancelledError:\n" \
    "...         conn.abort()\n" \
    "...         raise\n" \
    ">>> async def client(conn):\n" \
    "...     task = janus_tcp.spawn(wait(conn))\n" \
    "...     await janus_tcp.sleep(0)\n" \
    "...     task.cancel()\n" \
    "...     await janus_tcp.sleep(0)\n" \
    "...     return task.done(), conn.closed\n" \
    ">>> talk(echo, client)\n" \
    "(True, True)"

#define DOC_INCOMPLETE_READ_ERROR \
    "The stream ended early; args are the bytes that came, and how many bytes were wanted (None: up to a delimiter).\n" \
    "\n" \
    ">>> async def client(conn):\n" \
    "...     await conn.send(b\"abc\")\n" \
    "...     conn.shutdown()\n" \
    "...     try:\n" \
    "...         await conn.recv_exactly(5)\n" \
    "...     except janus_tcp.IncompleteReadError as error:\n" \
    "...         return error.args\n" \
    ">>> talk(echo, client)\n" \
    "(b'abc', 5)"

#define DOC_TASK_DONE \
    "done()\n" \
    "--\n" \
    "\n" \
    "Whether it has ended.  Never raises.\n" \
    "\n" \
    ">>> async def answer(conn):\n" \
    "...     return await conn.recv()\n" \
    ">>> async def client(conn):\n" \
    "...     task = janus_tcp.spawn(answer(conn))\n" \
    "...     await conn.send(b\"x\")\n" \
    "...     return task.done(), await task, task.done()\n" \
    ">>> talk(echo, client)\n" \
    "(False, b'x', True)"

#define DOC_TASK_EXCEPTION \
    "exception()\n" \
    "--\n" \
    "\n" \
    "What it ended with: an exception, CancelledError included, or None.  None while it runs; never raises.\n" \
    "\n" \
    ">>> async def fail():\n" \
    "...     raise KeyError(\"no such room\")\n" \
    ">>> async def client(conn):\n" \
    "...     task = janus_tcp.spawn(fail())\n" \
    "...     await janus_tcp.sleep(0)\n" \
    "...     return task.exception()\n" \
    ">>> talk(echo, client)\n" \
    "KeyError('no such room')"
/* clang-format on */

#endif
