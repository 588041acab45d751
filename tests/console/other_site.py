"""A web site of somebody else on this host: on another port, and by another name."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

PAGE = b"<!doctype html><meta charset=utf-8><title>Another site</title><h1>Another site</h1>"


@asynccontextmanager
async def another_site() -> AsyncIterator[int]:
    """Its port. Each of its addresses is an empty page without any policy."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n" + PAGE)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


#: What a page can try with the cookie of somebody who looks at it, without any click. Its result says what it got.
TRIES = """async ({target, own, vm, body}) => {
    const found = {};
    const tried = async (name, act) => {
        try { found[name] = String(await act()); } catch (error) { found[name] = `refused: ${error.name}`; }
    };
    const text = async answer => `${answer.type} ${answer.status} ${await answer.text()}`;
    const json = {'Content-Type': 'application/json'};
    const call = async (path, more) => text(await fetch(target + path, {credentials: 'include', ...more}));
    await tried('read', () => call('/v1/me'));
    await tried('read opaquely', () => call('/v1/me', {mode: 'no-cors'}));
    await tried('command', () => call('/v1/tags', {method: 'POST', headers: json, body}));
    await tried('simple command', () => call('/v1/tags', {method: 'POST', mode: 'no-cors', body}));
    await tried('deletion', () => call(vm, {method: 'DELETE'}));
    await tried('end of the session', () => call('/v1/session', {method: 'DELETE'}));
    await tried('proof', () => call('/v1/session', {headers: {'X-CSRF-Token': 'x'}}));
    const plain = new Blob([body], {type: 'text/plain'});
    await tried('beacon', () => navigator.sendBeacon(`${target}/v1/tags`, plain) && 'sent');
    const element = (tag, attribute, address) => new Promise((done, failed) => {
        const made = document.createElement(tag);
        made.onload = () => done('loaded');
        made.onerror = () => failed(new Error(tag));
        if (tag === 'link') made.rel = 'stylesheet';
        made[attribute] = address;
        document.body.append(made);
    });
    await tried('image', () => element('img', 'src', `${target}${vm}`));
    await tried('script', () => element('script', 'src', `${target}/v1/me`));
    await tried('script of the console', () => element('script', 'src', own));
    await tried('style sheet', () => element('link', 'href', `${target}/v1/me`));
    const opened = socket => new Promise((done, failed) => {
        socket.onopen = socket.onmessage = () => done('opened');
        socket.onerror = () => { socket.close(); failed(new Error('socket')); };
    });
    await tried('feed', () => opened(new EventSource(`${target}/v1/feed`, {withCredentials: true})));
    await tried('console', () => opened(new WebSocket(`${target.replace('http', 'ws')}${vm}/console`)));
    await tried('display', () => opened(new WebSocket(`${target.replace('http', 'ws')}${vm}/vnc`)));
    return found;
}"""

#: A form that is sent by itself, as JSON that only looks like a form.
FORM = """({target, body, type}) => {
    const form = document.createElement('form');
    form.method = 'POST';
    form.action = `${target}/v1/tags`;
    form.enctype = type;
    const field = document.createElement('input');
    field.name = body.slice(0, -2);
    field.value = '"}';
    form.append(field);
    document.body.append(form);
    form.submit();
}"""

#: The ways to show another site inside of a page.
FRAMES = """async target => {
    for (const [tag, attribute] of [['iframe', 'src'], ['object', 'data'], ['embed', 'src']]) {
        for (const path of ['/console/', '/v1/me', '/']) {
            const made = document.createElement(tag);
            made[attribute] = `${target}${path}`;
            made.width = made.height = 400;
            document.body.append(made);
        }
    }
    const hidden = document.createElement('iframe');
    hidden.sandbox = 'allow-scripts allow-same-origin allow-forms allow-top-navigation';
    hidden.src = `${target}/console/`;
    document.body.append(hidden);
}"""
